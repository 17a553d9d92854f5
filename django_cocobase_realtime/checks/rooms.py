"""Checks of rooms, in settings and as classes, and of where presence is kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ..conf import PRESENCE_KEYS, SETTING, PresenceSettings, conf
from ..declarations.registry import room_registry
from ..declarations.room import PERMISSION_METHODS, Room
from .messages import error, warning

BACKENDS = ("database", "memory", "redis")
METHODS_OF_BACKEND = ("enter", "leave", "sweep", "renew", "claim")


def declarations() -> Iterator[CheckMessage]:
    """Patterns of rooms and their options."""
    try:
        declared = conf.rooms
    except ImproperlyConfigured as problem:
        yield error(90, str(problem))
        return
    patterns: list[str] = []
    for pattern, declaration in declared.items():
        if not isinstance(pattern, str) or not pattern:
            yield error(90, f"{pattern!r} is no pattern of room names.", "Use a string.")
            continue
        if pattern in room_registry.registered:
            yield error(
                94,
                f"Rooms {pattern!r} are declared in {SETTING} and registered as a class.",
                "Keep one of the two.",
            )
            continue
        try:
            room = room_registry.from_settings(pattern, declaration)
        except ImproperlyConfigured as problem:
            yield error(91, str(problem))
            continue
        patterns.append(pattern)
        yield from _room(pattern, room)
    for pattern, cls in room_registry.registered.items():
        patterns.append(pattern)
        yield from _room(pattern, room_registry.from_class(pattern, cls))
    yield from _shadowed(patterns)


def _room(pattern: str, room: Room) -> Iterator[CheckMessage]:
    history = room.history
    if isinstance(history, bool) or not isinstance(history, int) or history < 0:
        yield error(91, f"Rooms {pattern!r}: 'history' must be a number of broadcasts.")
    if not isinstance(room.durable, bool):
        yield error(91, f"Rooms {pattern!r}: 'durable' must be True or False.")
    if room.title is not None and not isinstance(room.title, str):
        yield error(91, f"Rooms {pattern!r}: 'title' must be a string or None.")
    permission: Any = room.permission
    if isinstance(permission, str):
        try:
            permission = import_string(permission)
        except ImportError as problem:
            yield error(
                92,
                f"Rooms {pattern!r}: 'permission' {permission!r} cannot be imported.",
                str(problem),
            )
            return
    if permission is not None and not any(
        callable(getattr(permission, method, None)) for method in PERMISSION_METHODS
    ):
        yield error(
            93,
            f"Rooms {pattern!r}: 'permission' decides nothing.",
            f"Give it one of {', '.join(PERMISSION_METHODS)}.",
        )


def _shadowed(patterns: list[str]) -> Iterator[CheckMessage]:
    if "*" in patterns[:-1]:
        later = [p for p in patterns[patterns.index("*") + 1 :] if any(c in p for c in "*?[")]
        if later:
            yield warning(
                98,
                f"Rooms {', '.join(map(repr, later))} are never asked: '*' before them matches.",
                "The first pattern that matches counts; put '*' last.",
            )


def presence() -> Iterator[CheckMessage]:
    """Where it is known who is in which room."""
    value = conf.raw.get("PRESENCE", {})
    if not isinstance(value, dict) or set(value) - set(PRESENCE_KEYS):
        yield error(95, f"{SETTING}['PRESENCE'] must be a dictionary of {sorted(PRESENCE_KEYS)}.")
        return
    found = conf.presence
    grace, lease = found.grace, found.lease
    if any(isinstance(n, bool) or not isinstance(n, int | float) for n in (grace, lease)):
        yield error(97, "PRESENCE: GRACE and LEASE must be seconds.")
    elif grace < 0 or lease < max(3, 1.5 * grace):
        yield error(
            97,
            f"PRESENCE: GRACE {grace} and LEASE {lease} do not go together.",
            "LEASE, at least 3 and 1.5 times GRACE: else a killed server's users leave too soon.",
        )
    yield from _backend(found)


def _backend(found: PresenceSettings) -> Iterator[CheckMessage]:
    if not isinstance(found.backend, str):
        yield error(96, "PRESENCE: BACKEND must be a name or a dotted path.")
        return
    if found.backend == "memory":
        layer = getattr(settings, "CHANNEL_LAYERS", {}).get(conf.channel_layer, {})
        if not str(layer.get("BACKEND", "")).endswith("InMemoryChannelLayer"):
            yield warning(
                99,
                "PRESENCE in memory ends at its process, while the channel layer joins several.",
                "Use 'database' or 'redis'.",
            )
    elif found.backend == "redis":
        if found.url is None and not _layer_has_address():
            yield error(
                96,
                "PRESENCE: Redis needs a URL; the channel layer names none by address.",
                "Set 'URL': 'redis://host:6379/0'.",
            )
    elif found.backend != "database":
        try:
            backend = import_string(found.backend)
        except ImportError as problem:
            names = ", ".join(BACKENDS)
            yield error(
                96,
                f"PRESENCE: BACKEND {found.backend!r} cannot be imported.",
                f"{problem} Known names are {names}.",
            )
            return
        if not all(callable(getattr(backend, name, None)) for name in METHODS_OF_BACKEND):
            yield error(96, f"PRESENCE: {found.backend!r} is no presence backend.")


def _layer_has_address() -> bool:
    layer = getattr(settings, "CHANNEL_LAYERS", {}).get(conf.channel_layer, {})
    hosts = (layer.get("CONFIG") or {}).get("hosts") or []
    host = hosts[0] if hosts else None
    if isinstance(host, dict):
        host = host.get("address")
    return isinstance(host, str | tuple | list)

"""Checks of declared rooms and of the presence backend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ..conf import conf
from ..declarations.registry import room_registry
from ..declarations.room import PERMISSION_METHODS, Room
from ..options import SETTING, PresenceSettings
from ..presence.base import BACKENDS, PresenceBackend
from .base import error, warning

MIN_LEASE = 3  # seconds
MIN_LEASE_PER_GRACE = 1.5  # times the grace period


def check_rooms() -> Iterator[CheckMessage]:
    """Check the patterns and options of the rooms declared in settings or as classes."""
    problems = conf.problems("ROOMS")
    for problem in problems:
        yield error(90, problem.message, problem.hint)
    if problems:
        return
    patterns: list[str] = []
    for pattern, entry in conf.rooms.items():
        if not isinstance(pattern, str) or not pattern:
            yield error(90, f"{pattern!r} is not a pattern of room names.", "Use a string.")
            continue
        if pattern in room_registry.registered:
            yield error(
                94,
                f"Rooms {pattern!r} are declared in {SETTING} and registered as a class.",
                "Keep one of the two.",
            )
            continue
        try:
            room = room_registry.from_settings(pattern, entry)
        except ImproperlyConfigured as error_in_entry:
            yield error(91, str(error_in_entry))
            continue
        patterns.append(pattern)
        yield from _check_room(pattern, room)
    for pattern, cls in room_registry.registered.items():
        patterns.append(pattern)
        yield from _check_room(pattern, room_registry.from_class(pattern, cls))
    yield from _check_order(patterns)


def _check_room(pattern: str, room: Room) -> Iterator[CheckMessage]:
    history = room.history
    if isinstance(history, bool) or not isinstance(history, int) or history < 0:
        yield error(91, f"Rooms {pattern!r}: 'history' must be a number of broadcasts.")
    if not all(isinstance(flag, bool) for flag in (room.durable, room.public)):
        yield error(91, f"Rooms {pattern!r}: 'durable' and 'public' must be True or False.")
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
            f"Rooms {pattern!r}: 'permission' has no method that decides anything.",
            f"Give it one of {', '.join(PERMISSION_METHODS)}.",
        )


def _check_order(patterns: list[str]) -> Iterator[CheckMessage]:
    if "*" in patterns[:-1]:
        after = patterns[patterns.index("*") + 1 :]
        unreachable = [pattern for pattern in after if any(c in pattern for c in "*?[")]
        if unreachable:
            yield warning(
                98,
                f"Rooms {', '.join(map(repr, unreachable))} are never used: '*' before them "
                "matches all names.",
                "The first pattern that matches is used; put '*' last.",
            )


def check_presence() -> Iterator[CheckMessage]:
    """Check the presence backend, the grace period and the lease."""
    problems = conf.problems("PRESENCE")
    for problem in problems:
        if problem.key is None:
            yield error(95, problem.message, problem.hint)
        elif problem.key == "BACKEND":
            yield error(96, problem.message, f"Use one of {', '.join(BACKENDS)}, or a dotted path.")
        else:
            yield error(97, problem.message, problem.hint)
    if problems:
        return
    presence = conf.presence
    grace, lease = presence.grace, presence.lease
    if grace < 0 or lease < max(MIN_LEASE, MIN_LEASE_PER_GRACE * grace):
        yield error(
            97,
            f"PRESENCE: GRACE {grace} and LEASE {lease} do not fit together.",
            f"LEASE must be at least {MIN_LEASE} and {MIN_LEASE_PER_GRACE} times GRACE: "
            "otherwise the users of a killed server leave too soon.",
        )
    yield from _check_backend(presence)


def _check_backend(presence: PresenceSettings) -> Iterator[CheckMessage]:
    if presence.backend == "memory":
        layer = getattr(settings, "CHANNEL_LAYERS", {}).get(conf.channel_layer, {})
        if not str(layer.get("BACKEND", "")).endswith("InMemoryChannelLayer"):
            yield warning(
                99,
                "PRESENCE in memory is not shared, while the channel layer connects processes.",
                "Use 'database' or 'redis'.",
            )
    elif presence.backend == "redis":
        from ..presence.redis_hosts import connection_pool, presence_host

        try:
            connection_pool(presence_host(presence))
        except ImproperlyConfigured as problem:
            yield error(
                96,
                str(problem),
                "Set 'URL' to 'redis://host:6379/0', or to a dictionary as in the 'hosts' of a "
                "channel layer, for example {'sentinels': [('host', 26379)], 'master_name': ...}.",
            )
    elif presence.backend not in BACKENDS:
        try:
            backend = import_string(presence.backend)
        except ImportError as problem:
            yield error(
                96,
                f"PRESENCE: BACKEND {presence.backend!r} cannot be imported.",
                f"{problem} Known names are {', '.join(BACKENDS)}.",
            )
            return
        methods = PresenceBackend.__abstractmethods__
        missing = sorted(m for m in methods if not callable(getattr(backend, m, None)))
        if missing:
            yield error(
                96,
                f"PRESENCE: {presence.backend!r} is not a presence backend.",
                f"It lacks the methods {', '.join(missing)}.",
            )

"""Checks of limits, the log, tokens and numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from django.core.checks import CheckMessage
from django.utils.module_loading import import_string

from ..conf import JWT_KEYS, LIMIT_NAMES, LOG_KEYS, OPTIONS, SETTING, Limits, conf
from .messages import error, warning

RATES = {name for name in LIMIT_NAMES if name.endswith("_rate")}


def limits() -> Iterator[CheckMessage]:
    """Known names, sensible numbers."""
    value = conf.raw.get("LIMITS", {})
    if not isinstance(value, dict):
        yield error(20, f"{SETTING}['LIMITS'] must be a dictionary.")
        return
    for name, limit in value.items():
        if name not in LIMIT_NAMES:
            yield error(20, f"There is no limit {name!r}.", f"Limits are {sorted(LIMIT_NAMES)}.")
        elif name in RATES:
            if not (
                isinstance(limit, tuple | list)
                and len(limit) == 2
                and all(isinstance(n, int | float) and n > 0 for n in limit)
            ):
                yield error(21, f"Limit {name!r} must be (a second, burst), both above zero.")
        elif limit is None and getattr(Limits(), name) is None:
            continue
        elif isinstance(limit, bool) or not isinstance(limit, int | float) or limit <= 0:
            yield error(21, f"Limit {name!r} must be a number above zero.")


def log() -> Iterator[CheckMessage]:
    """How long changes are kept."""
    value = conf.raw.get("LOG", {})
    if not isinstance(value, dict) or set(value) - set(LOG_KEYS):
        yield error(25, f"{SETTING}['LOG'] must be a dictionary of {sorted(LOG_KEYS)}.")
        return
    for name, number in value.items():
        if number is None and name != "POLL":
            continue
        if isinstance(number, bool) or not isinstance(number, int | float) or number <= 0:
            yield error(26, f"{SETTING}['LOG'][{name!r}] must be a number above zero.")


def jwt() -> Iterator[CheckMessage]:
    """Tokens can be verified, and by one kind of key."""
    value = conf.raw.get("JWT")
    if value is None:
        return
    if not isinstance(value, dict):
        yield error(30, f"{SETTING}['JWT'] must be a dictionary or None.")
        return
    for key in value:
        if key not in JWT_KEYS:
            yield error(30, f"JWT has an unknown key {key!r}.", f"Known keys: {list(JWT_KEYS)}.")
    algorithms = value.get("ALGORITHMS", ["HS256"])
    if isinstance(algorithms, str) or not algorithms:
        yield error(31, "JWT: ALGORITHMS must be a list of names.")
    elif any(str(name).lower() == "none" for name in algorithms):
        yield error(31, "JWT: the algorithm 'none' signs nothing.", "Name those that you issue.")
    elif any(str(n).startswith("HS") for n in algorithms) and any(
        not str(n).startswith("HS") for n in algorithms
    ):
        yield error(
            31,
            "JWT: ALGORITHMS mixes shared secrets and public keys.",
            "A public key must never be taken for a shared secret: name one kind.",
        )
    if bool(value.get("KEY")) == bool(value.get("JWKS_URL")):
        yield error(32, "JWT needs either KEY or JWKS_URL.")
    elif value.get("KEY") and isinstance(value["KEY"], str) and len(value["KEY"]) < 32:
        yield warning(33, "JWT: KEY is short.", "RFC 7518 asks HS256 for 32 bytes or more.")


def authenticators() -> Iterator[CheckMessage]:
    """Each can be imported."""
    value = conf.raw.get("AUTHENTICATORS", ())
    if isinstance(value, str):
        yield error(40, f"{SETTING}['AUTHENTICATORS'] must be a list of dotted paths.")
        return
    for path in value:
        try:
            import_string(path)
        except ImportError as problem:
            yield error(40, f"Authenticator {path!r} cannot be imported.", str(problem))


def numbers() -> Iterator[CheckMessage]:
    """What is counted in seconds and threads, and what must be a list."""
    numbers: dict[str, Callable[[Any], bool]] = {
        "HEARTBEAT": lambda n: n > 0,
        "REVOCATION_POLL": lambda n: 0 < n <= 5,
        "WORKERS": lambda n: n >= 1 and n == int(n),
    }
    for name, holds in numbers.items():
        value = conf.raw.get(name, OPTIONS[name].default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not holds(value):
            hint = "At most 5 seconds." if name == "REVOCATION_POLL" else None
            yield error(60, f"{SETTING}[{name!r}] is {value!r}, which is out of bounds.", hint)
    for name in ("ALLOWED_ORIGINS", "TRUSTED_PROXIES"):
        value = conf.raw.get(name)
        if isinstance(value, str):
            yield error(61, f"{SETTING}[{name!r}] must be a list, not a string.")

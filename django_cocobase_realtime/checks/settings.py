"""Checks of all keys of the setting except collections, rooms and presence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from inspect import iscoroutinefunction
from ipaddress import ip_network

from django.core.checks import CheckMessage
from django.utils.module_loading import import_string

from ..conf import conf
from ..options import FRAME_LIMITS, MAX_EVENT_BYTES
from .base import error, warning

_MEMBER_HINT = "It is the dotted path of a synchronous function of an identity."
MIN_KEY_LENGTH = 32  # characters of a shared secret


def check_limits() -> Iterator[CheckMessage]:
    """Check ``LIMITS``."""
    for problem in conf.problems("LIMITS"):
        if problem.key is None:
            yield error(20, problem.message, problem.hint)
        else:
            yield error(21, problem.message, problem.hint)
    limits = conf.raw.get("LIMITS")
    if not isinstance(limits, Mapping):
        return
    for name in FRAME_LIMITS:
        value = limits.get(name)
        if isinstance(value, int | float) and value > MAX_EVENT_BYTES:
            yield error(
                22,
                f"LIMITS: {name} is {value}, but a frame may have {MAX_EVENT_BYTES} bytes at most.",
                "Servers such as daphne refuse to send frames of more than 1 MiB.",
            )


def check_log() -> Iterator[CheckMessage]:
    """Check ``LOG``."""
    for problem in conf.problems("LOG"):
        if problem.key is None:
            yield error(25, problem.message, problem.hint)
        else:
            yield error(26, problem.message, problem.hint)


def check_jwt() -> Iterator[CheckMessage]:
    """Check that tokens can be verified, with a shared secret or public keys but not both."""
    for problem in conf.problems("JWT"):
        yield error(30, problem.message, problem.hint)
    value = conf.raw.get("JWT")
    if not isinstance(value, Mapping):
        return
    algorithms = value.get("ALGORITHMS", ["HS256"])
    if isinstance(algorithms, str) or not algorithms:
        yield error(31, "JWT: ALGORITHMS must be a list of names.")
    elif any(str(name).lower() == "none" for name in algorithms):
        yield error(
            31, "JWT: the algorithm 'none' signs nothing.", "Name the algorithms that you issue."
        )
    elif any(str(name).startswith("HS") for name in algorithms) and any(
        not str(name).startswith("HS") for name in algorithms
    ):
        yield error(
            31,
            "JWT: ALGORITHMS mixes shared secrets and public keys.",
            "A public key must never be used as a shared secret: name algorithms of one kind.",
        )
    if bool(value.get("KEY")) == bool(value.get("JWKS_URL")):
        yield error(32, "JWT needs either KEY or JWKS_URL.")
    elif value.get("KEY") and isinstance(value["KEY"], str) and len(value["KEY"]) < MIN_KEY_LENGTH:
        yield warning(33, "JWT: KEY is short.", "RFC 7518 requires 32 bytes or more for HS256.")


def check_authenticators() -> Iterator[CheckMessage]:
    """Check that all authenticators can be imported."""
    problems = conf.problems("AUTHENTICATORS")
    for problem in problems:
        yield error(40, problem.message, "Each item is the dotted path of a class.")
    if problems:
        return
    for path in conf.authenticators:
        try:
            import_string(path)
        except ImportError as problem:
            yield error(40, f"Authenticator {path!r} cannot be imported.", str(problem))


def check_member() -> Iterator[CheckMessage]:
    """Check that the function that returns names can be imported and called."""
    problems = conf.problems("MEMBER")
    for problem in problems:
        yield error(41, problem.message, _MEMBER_HINT)
    path = conf.member
    if problems or path is None:
        return
    try:
        function = import_string(path)
    except Exception as problem:  # whatever the module raises
        yield error(41, f"The function {path!r} of MEMBER cannot be imported.", str(problem))
        return
    if not callable(function):
        yield error(41, f"{path!r}, which MEMBER names, is not callable.", _MEMBER_HINT)
    elif iscoroutinefunction(function):
        yield error(41, f"The function {path!r} of MEMBER is asynchronous.", _MEMBER_HINT)


def check_single_values() -> Iterator[CheckMessage]:
    """Check numbers and lists that are not part of a nested dictionary."""
    for name in ("DRAIN", "HEARTBEAT", "REVOCATION_POLL", "WORKERS"):
        for problem in conf.problems(name):
            yield error(60, problem.message, f"It is {conf.raw[name]!r}.")
    for name in ("ALLOWED_ORIGINS", "TRUSTED_PROXIES"):
        for problem in conf.problems(name):
            yield error(61, problem.message, "Put the string into a list.")
    if not conf.problems("TRUSTED_PROXIES"):
        for proxy in conf.trusted_proxies:
            try:
                ip_network(proxy, strict=False)
            except ValueError as problem:
                yield error(
                    74,
                    f"TRUSTED_PROXIES contains {proxy!r}, which is no address and no network.",
                    f"{problem}. Names of hosts are not looked up.",
                )

"""The public keys of an identity provider, fetched from a URL and cached (RFC 7517)."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import jwt
from jwt import PyJWK, PyJWKClient

from .backends import AuthenticationPostponed, AuthenticationUnavailable, NotYetValid

logger = logging.getLogger(__name__)

LIFETIME = 300.0  # seconds after which the keys are fetched again
MAX_AGE = 3600.0  # seconds that keys are used if newer ones cannot be fetched
FETCH_TIMEOUT = 5.0  # seconds that the thread that starts a fetch waits for it
JOIN_TIMEOUT = 1.0  # seconds after the start of a fetch until which other threads wait for it
ABANDON_AFTER = 10.0  # seconds after which a fetch that did not end may be started again
RETRY_INTERVAL = 5.0  # seconds between a fetch that failed and the next one
UNKNOWN_KEY_INTERVAL = 10.0  # seconds between two fetches for tokens whose key is unknown

Claims = dict[str, Any]


class _Fetch:
    """A request for the keys, which runs in a thread of its own."""

    def __init__(self, started_at: float) -> None:
        # monotonic time
        self.started_at = started_at
        # set when the request has succeeded or failed
        self.done = threading.Event()


class KeySet:
    """The keys that a URL provides.

    They are fetched again when they are older than `LIFETIME`. If that fails or takes long, the
    old ones are used until they are `MAX_AGE` old. A token with an unknown key also makes it fetch
    the keys, but at most once in `UNKNOWN_KEY_INTERVAL`, so that invented key ids do not cause a
    request each. These fetches do not delay those for expired keys.

    Only one fetch runs at a time. The thread that starts it waits for `FETCH_TIMEOUT` at most, and
    others for `JOIN_TIMEOUT`, so that a slow server does not occupy all threads.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        # protects the attributes below; never held during a request
        self._lock = threading.Lock()
        # the keys as of the last fetch that succeeded
        self._keys: tuple[PyJWK, ...] = ()
        # monotonic times of the last fetch that succeeded, the last one that failed, and the last
        # one that was started for a token with an unknown key
        self._fetched_at = float("-inf")
        self._failed_at = float("-inf")
        self._unknown_key_at = float("-inf")
        # the fetch that runs
        self._running: _Fetch | None = None

    def decode(self, token: str, decode: Callable[[PyJWK], Claims]) -> Claims:
        """Return the claims of a token, which ``decode`` verifies with a key.

        Raises ``jwt.PyJWTError`` if the token is not valid, `NotYetValid` if its key is not among
        those that the server provides now, and `AuthenticationUnavailable` if that is unknown.
        """
        header = jwt.get_unverified_header(token)
        called_at = time.monotonic()
        claims = _decode_with(self._current_keys(), header, decode)
        if claims is None and self._fetched_at < called_at:  # the keys may have been rotated
            claims = _decode_with(self._keys_for_unknown_key(), header, decode)
        if claims is None:
            raise NotYetValid("The key that signed the token is unknown.")
        return claims

    def has_key_for(self, token: str) -> bool:
        """Return whether `decode` certainly makes no request for this token now."""
        with self._lock:
            if time.monotonic() - self._fetched_at >= LIFETIME:
                return False
            keys = self._keys
        try:
            kid = jwt.get_unverified_header(token).get("kid")
        except jwt.PyJWTError:
            return True
        return kid is not None and any(key.key_id == kid for key in keys)

    def _current_keys(self) -> tuple[PyJWK, ...]:
        """Return the keys, which are fetched first if they have expired."""
        now = time.monotonic()
        with self._lock:
            if now - self._fetched_at < LIFETIME:
                return self._keys
            may_fetch = now - self._failed_at >= RETRY_INTERVAL
            fetch, is_own = self._join_or_start(now) if may_fetch else (None, False)
        if fetch is not None:
            _wait(fetch, is_own)
        with self._lock:
            if time.monotonic() - self._fetched_at < MAX_AGE:
                return self._keys
        raise AuthenticationUnavailable(self._url)

    def _keys_for_unknown_key(self) -> tuple[PyJWK, ...]:
        """Return the keys after another fetch, because the current ones do not fit a token."""
        now = time.monotonic()
        with self._lock:
            if self._find_running(now) is None:
                if now - self._failed_at < RETRY_INTERVAL:
                    raise AuthenticationUnavailable(self._url)
                if now - self._unknown_key_at < UNKNOWN_KEY_INTERVAL:
                    raise AuthenticationPostponed("A token has an unknown key.")
                self._unknown_key_at = now
            fetch, is_own = self._join_or_start(now)
        _wait(fetch, is_own)
        with self._lock:
            if self._fetched_at >= now:
                return self._keys
        raise AuthenticationUnavailable(self._url)

    # fetches

    def _find_running(self, now: float) -> _Fetch | None:
        """Return the fetch that runs, unless it has taken so long that it is abandoned."""
        if self._running is not None and now - self._running.started_at >= ABANDON_AFTER:
            logger.warning("The server of the keys that verify tokens does not answer.")
            self._running = None
        return self._running

    def _join_or_start(self, now: float) -> tuple[_Fetch, bool]:
        """Return the fetch that runs, or start one, and whether it was started."""
        fetch = self._find_running(now)
        if fetch is not None:
            return fetch, False
        fetch = self._running = _Fetch(now)
        threading.Thread(target=self._run, args=(fetch,), name="jwks", daemon=True).start()
        return fetch, True

    def _run(self, fetch: _Fetch) -> None:
        keys: tuple[PyJWK, ...] | None = None
        try:
            keys = _fetch_keys(self._url)
        except Exception as error:  # whatever a server that is out of order answers
            logger.warning("The keys that verify tokens could not be fetched: %r", error)
        with self._lock:
            if self._running is fetch:  # it was not abandoned
                self._running = None
                if keys is None:
                    self._failed_at = time.monotonic()
                else:
                    self._keys, self._fetched_at = keys, time.monotonic()
        fetch.done.set()


def _fetch_keys(url: str) -> tuple[PyJWK, ...]:
    """Return the keys that a URL provides, without those that cannot be used for signatures."""
    data = PyJWKClient(url, cache_jwk_set=False, timeout=FETCH_TIMEOUT).fetch_data()
    keys = []
    for item in data["keys"]:
        try:
            key = PyJWK.from_dict(item)
        except (jwt.PyJWTError, AttributeError, TypeError, ValueError) as error:
            logger.debug("A key cannot be used: %s", type(error).__name__)
            continue
        if key.public_key_use in ("sig", None):
            keys.append(key)
    return tuple(keys)


def _wait(fetch: _Fetch, is_own: bool) -> None:
    timeout = FETCH_TIMEOUT if is_own else JOIN_TIMEOUT
    fetch.done.wait(max(fetch.started_at + timeout - time.monotonic(), 0))


def _decode_with(
    keys: Iterable[PyJWK], header: dict[str, Any], decode: Callable[[PyJWK], Claims]
) -> Claims | None:
    """Return the claims of a token, or None if none of the keys is the one that signed it.

    If the token names its key, that key must have signed it. A token that names none may be signed
    by any key with its algorithm.
    """
    kid = header.get("kid")
    if kid is not None:
        named = [key for key in keys if key.key_id == kid]
        # keys of different types may have the same id
        fitting = [key for key in named if key.algorithm_name == header.get("alg")] or named
        return decode(fitting[0]) if fitting else None
    for key in keys:
        if key.algorithm_name == header.get("alg"):
            try:
                return decode(key)
            except jwt.InvalidSignatureError:
                continue
    return None


@lru_cache(maxsize=8)
def key_set(url: str) -> KeySet:
    """Return the keys that a URL provides, shared by all threads."""
    return KeySet(url)


# in a process that is forked during a fetch, its thread does not exist
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=key_set.cache_clear)

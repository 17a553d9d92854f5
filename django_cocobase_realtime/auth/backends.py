"""Authentication by the authenticators that the ``AUTHENTICATORS`` setting lists."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from functools import lru_cache

from django.utils.module_loading import import_string

from ..conf import conf
from ..identity import Identity
from ..types import Scope
from ..utils.project_code import ProjectCodeFailed, is_unavailable, synchronous
from .anonymous import Anonymous
from .base import Authenticator
from .members import with_member_name

MAX_TOKEN_LENGTH = 4096  # characters; longer tokens are refused without calling an authenticator
# calls in which an authenticator may raise, until the identities that remain are not checked
MAX_FAILED_CALLS = 100


class AuthenticationUnavailable(Exception):
    """The credential could not be validated, because a database or server does not answer.

    The client is asked to reconnect later. A project's own authenticators may raise it.
    """


class AuthenticationPostponed(AuthenticationUnavailable):
    """The credential was not validated, because such requests are limited.

    The client is asked to reconnect later. It counts as a failure of the client's address.
    """


class NotYetValid(Exception):
    """The credential is refused now, but may be accepted in a moment.

    Examples are a token whose key is not published yet, and one that is not valid before a time.
    The client gets the same answer as for any other invalid credential, but the credential is not
    remembered as a wrong one. A project's own authenticators may raise it.
    """


class MustBeAlone(Exception):
    """The credential cannot be checked together with others, since that may take long."""


@lru_cache(maxsize=32)
def load_authenticator(path: str) -> Authenticator:
    """Return an instance of the authenticator class with this dotted path."""
    authenticator: Authenticator = import_string(path)()
    return authenticator


def authenticate(token: str | None, scope: Scope) -> Identity | None:
    """Return the identity of the first authenticator that accepts the token, or None.

    A client without a token is an anonymous visitor if ``AUTHENTICATORS`` lists `Anonymous` and all
    other authenticators have refused it. A wrong token never makes an anonymous visitor.

    Raises, if none accepts it: `AuthenticationUnavailable` if one of them could not decide, or the
    database fails; `ProjectCodeFailed` after another exception, since it is not known whether the
    token is valid; and `NotYetValid` if one of them raises it.
    """
    attempt = Attempt(token, scope)
    for path in sorted(conf.authenticators, key=is_for_visitors):
        if attempt.is_decided:
            break
        attempt.add(path, _ask_one(path, attempt))
    return attempt.result()


def _ask_one(path: str, attempt: Attempt) -> Identity | Exception | None:
    """Return the answer of an authenticator, or the exception that it raised."""
    try:
        authenticator = load_authenticator(path)
        if isinstance(authenticator, Anonymous) and attempt.is_undecided:
            return None  # the visitor may be a user
        identity: Identity | None = synchronous(
            authenticator.authenticate(attempt.token, attempt.scope)
        )
        if identity is not None and attempt.scope.get("type") != "http":
            identity = with_member_name(identity)
    except Exception as error:
        return error
    return identity


class Attempt:
    """An attempt to authenticate with a token, and the answers of authenticators so far."""

    __slots__ = (
        "_failure",
        "_identity",
        "_not_yet_valid",
        "_undecided",
        "is_decided",
        "scope",
        "token",
    )

    def __init__(self, token: str | None, scope: Scope) -> None:
        self.token = token
        self.scope = scope
        # whether no other authenticator needs to be asked
        self.is_decided = token is not None and (
            not 0 < len(token) <= MAX_TOKEN_LENGTH or not token.isprintable()
        )
        self._identity: Identity | None = None
        # what the authenticators raised that were asked
        self._undecided: AuthenticationUnavailable | None = None
        self._not_yet_valid: NotYetValid | None = None
        self._failure: ProjectCodeFailed | None = None

    @property
    def is_undecided(self) -> bool:
        """Whether an authenticator could not decide, so that the client may be a user."""
        return bool(self._undecided or self._failure or self._not_yet_valid)

    def add(self, path: str, answer: Identity | Exception | None) -> None:
        """Record what an authenticator has returned or raised."""
        match answer:
            case None:
                pass
            case AuthenticationUnavailable():
                # the token may be one of another authenticator
                self._undecided = answer
            case NotYetValid():
                self._not_yet_valid = answer
            case Exception():
                if is_unavailable(answer):
                    self._undecided = AuthenticationUnavailable(path)
                    self._undecided.__cause__ = answer
                    self.is_decided = True
                    return
                if self._failure is not None:
                    self._failure.log()  # the last one is logged by the caller, or by `result`
                self._failure = _failure(path, "authenticate", answer)
            case _:
                self._identity, self.is_decided = answer, True

    def result(self) -> Identity | None:
        """Return the identity, or None; raise what `authenticate` raises."""
        identity, failure = self._identity, self._failure
        if identity is None and self._undecided is None:
            if failure is not None:
                raise failure
            if self._not_yet_valid is not None:
                raise self._not_yet_valid
            return None
        if failure is not None:
            failure.log()
        if identity is None:
            assert self._undecided is not None
            raise self._undecided
        is_downgraded = identity.is_anonymous and self.token is not None
        return None if is_downgraded or _is_expired(identity) else identity


def is_for_visitors(path: str) -> bool:
    """Return whether an authenticator accepts anonymous visitors, so that it is asked last."""
    try:
        return isinstance(load_authenticator(path), Anonymous)
    except Exception:  # it cannot be imported, which is handled when it is asked
        return False


def _failure(path: str, method: str, error: Exception) -> ProjectCodeFailed:
    # the exception's message may contain the token
    failure = ProjectCodeFailed(f"authenticator {path}", method, secret=True)
    failure.__cause__ = error
    return failure


def _is_expired(identity: Identity) -> bool:
    """Return whether a credential has expired, although its authenticator accepted it.

    The connection would be closed at once, and its client would come back immediately.
    """
    return identity.expires_at is not None and identity.expires_at <= datetime.now(UTC)


def find_revoked(path: str, identities: Collection[Identity]) -> set[str]:
    """Return which credentials of the authenticator with this path are no longer valid.

    If it raises, this is logged, and it is asked about fewer identities at once, so that the one
    that it cannot check is omitted. Raises the exceptions of a database that does not answer, and
    `AuthenticationUnavailable`.
    """
    return _ask(path, "revoked", identities)


def find_changed(path: str, identities: Collection[Identity]) -> set[str]:
    """Return which credentials of an authenticator are valid, but now for another identity.

    If it raises, see `find_revoked`.
    """
    return _ask(path, "changed", identities)


def _ask(path: str, method_name: str, identities: Collection[Identity]) -> set[str]:
    authenticator = load_authenticator(path)
    prefix = f"{authenticator.kind}:"
    own = [identity for identity in identities if identity.credential.startswith(prefix)]
    # an authenticator need not inherit from the base class
    method = getattr(authenticator, method_name, None)
    credentials: set[str] = set()
    if method is None:
        return credentials
    remaining, failures = [own] if own else [], 0
    while remaining and failures < MAX_FAILED_CALLS:
        batch = remaining.pop()
        try:
            credentials |= set(synchronous(method(batch)))
        except Exception as error:
            if isinstance(error, AuthenticationUnavailable) or is_unavailable(error):
                raise
            failures += 1
            _failure(path, method_name, error).log()
            if len(batch) > 1:
                middle = len(batch) // 2
                remaining += [batch[middle:], batch[:middle]]
    return credentials

"""The command ``auth``, which authenticates a connection or refreshes its credential."""

from __future__ import annotations

from typing import Any

from ..events import now
from ..identity import AccessScope, Identity
from ..utils.project_code import ProjectCodeFailed
from ..wire import frames
from ..wire.codes import CloseCode, ErrorCode
from ..wire.commands import Auth
from .effects import (
    Admission,
    AdmitConnection,
    Authenticate,
    EnableBatching,
    Reauthorize,
    ScheduleExpiry,
    Send,
    Steps,
    TooManyConnections,
)
from .state import SessionState

# `retry_after_ms` that is sent if an authenticator raised an exception
RETRY_MS = 5000
# the limits that clients know, so that they need not send what would be refused
CLIENT_LIMITS = (
    "message_bytes",
    "name_bytes",
    "state_bytes",
    "subscriptions",
    "rooms",
    "messages_rate",
    "subscribe_rate",
    "broadcast_rate",
)
# claims that differ between tokens of the same user, and that no permission depends on
_PER_TOKEN_CLAIMS = frozenset({"exp", "iat", "nbf", "jti"})


def auth(session: SessionState, command: Auth) -> Steps:
    """Authenticate the connection.

    If the first credential is not valid, the connection is closed. If that of a refresh is not
    valid, it continues with the old one. If an authenticator failed, the client may try again.
    """
    try:
        identity: Identity | None = yield Authenticate(command.token)
    except ProjectCodeFailed:
        session.has_auth_failed = True
        message = "The credential could not be checked; send auth again after retry_after_ms."
        yield session.error(ErrorCode.INTERNAL_ERROR, message, command.id, RETRY_MS)
        return
    current = session.identity
    if identity is None:
        yield session.error(
            ErrorCode.AUTHENTICATION_FAILED,
            "Send a token: no user is logged in on this site."
            if command.token is None
            else "The credential is not valid; send a valid API key or token.",
            command.id,
        )
        if current is None:
            yield from session.close(CloseCode.BAD_CREDENTIAL)
        return
    if current is not None and not current.same_subject(identity):
        yield session.error(
            ErrorCode.AUTHENTICATION_FAILED,
            "The token must be for the same user and project; open a new connection for others.",
            command.id,
        )
        yield from session.close(CloseCode.BAD_CREDENTIAL)
        return
    session.connection.identity = identity
    if current is None:
        admission: Admission | TooManyConnections = yield AdmitConnection()
        if isinstance(admission, TooManyConnections):
            yield from session.close(CloseCode.CONNECTION_LIMIT, admission.retry_after_ms)
            return
        session.subscriptions, session.rooms = admission.subscriptions, admission.rooms
    if command.batch:
        yield EnableBatching()
    yield ScheduleExpiry()
    if current is not None and _restrictions(current) != _restrictions(identity):
        yield Reauthorize()
    yield Send(
        frames.authenticated(
            command.id,
            connection=session.connection.id,
            user=_user(identity),
            project=identity.project,
            expires_at=identity.expires_at,
            heartbeat=session.heartbeat,
            limits={name: getattr(session.limits, name) for name in CLIENT_LIMITS},
            now=now(),
        )
    )


def _restrictions(identity: Identity) -> tuple[AccessScope, dict[str, Any]]:
    """Return the scope of a credential, and the claims that a permission may depend on."""
    claims = identity.claims.items()
    return identity.scope, {name: value for name, value in claims if name not in _PER_TOKEN_CLAIMS}


def _user(identity: Identity) -> dict[str, str] | None:
    key = identity.user_key
    return None if key is None else {"id": key, "name": identity.name}

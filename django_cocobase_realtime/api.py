"""The public functions that a project calls, in sync or async code."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from django.db import models, transaction

from .auth.signals import announce_permissions_changed
from .capture.recorder import capture_disabled, record
from .capture.tables import watched_tables
from .conf import conf
from .declarations.capture_mode import title
from .declarations.image_fields import row_tables
from .declarations.registry import registry, room_registry
from .declarations.room import Room
from .declarations.serialization import to_json_value
from .events import Broadcast, DirectMessage, DisconnectRequested, now
from .identity import DEFAULT_PROJECT, Identity, user_key
from .inspection.connections import aconnections, connections
from .pubsub.broker import broker
from .rooms import publisher
from .rooms.publisher import PublishResult
from .utils.json_text import clean
from .utils.transactions import database_for, write_transaction
from .wire.codes import CloseCode
from .wire.json import is_valid_text

__all__ = [
    "abroadcast",
    "aconnections",
    "broadcast",
    "capture_disabled",
    "connections",
    "disconnect",
    "notify_change",
    "permissions_changed",
    "send_to_user",
]


def broadcast(
    room: str,
    message: Any,
    *,
    project: str = DEFAULT_PROJECT,
    idempotency_key: str | None = None,
    ephemeral: bool = False,
    using: str | None = None,
) -> None:
    """Send ``message`` (any JSON value) to everyone in a room, with a ``sender`` of null.

    The room ``"*"`` stands for every connection of the project. The function does not wait for
    the delivery, which happens at most once. Inside a transaction (of the database ``using``) the
    message is sent after the commit; after a rollback it is not sent. Of several calls for a room
    with the same ``idempotency_key`` within five minutes, only the first sends. With ``ephemeral``
    the message is not kept, even if the room has a history. Raises ``TypeError`` for a value that
    JSON cannot represent, and ``ValueError`` for one that is larger than the limit
    ``event_bytes``.
    """
    event = _broadcast(room, message, project)

    def send() -> None:
        publisher.publish_nowait(
            event, _declared(room), ephemeral=ephemeral, idempotency_key=idempotency_key
        )

    transaction.on_commit(send, using=using, robust=True)


async def abroadcast(
    room: str,
    message: Any,
    *,
    project: str = DEFAULT_PROJECT,
    idempotency_key: str | None = None,
    ephemeral: bool = False,
) -> bool:
    """Send a message like `broadcast`, but from async code and without waiting for a commit.

    Returns False if the channel layer did not accept the message.
    """
    result = await publisher.publish(
        _broadcast(room, message, project),
        _declared(room),
        ephemeral=ephemeral,
        idempotency_key=idempotency_key,
    )
    return result is not PublishResult.FAILED


def send_to_user(
    user: Any, message: Any, *, project: str = DEFAULT_PROJECT, using: str | None = None
) -> None:
    """Send ``message`` to all connections of a user, in rooms or not.

    ``user`` is an instance or its primary key, or an `Identity` or its ``user_key``.

    It is sent after the commit and delivered at most once, like `broadcast`. Nothing is kept for a
    user who is not connected.
    """
    event = DirectMessage(project=project, message=_json(message), at=now(), user=_user_key(user))
    transaction.on_commit(lambda: broker.publish(event), using=using, robust=True)


def notify_change(
    collection: str,
    event: Literal["created", "updated", "deleted"],
    instance: models.Model,
    *,
    using: str | None = None,
) -> None:
    """Announce a change of one row that was not captured (raw SQL, another program).

    The row is read from the database, or for ``deleted`` taken from the instance. After the
    commit, the change is filtered, authorized and delivered like any other. A table that
    collections depend on is named by the label of its model; if it is also that of a collection,
    one call with the collection's name announces both. Raises ``LookupError`` for an unknown
    collection, ``TypeError`` for an instance of another model, and ``ValueError`` for an unknown
    event.
    """
    declared = registry.named(collection)
    model = declared.concrete_model
    if not isinstance(instance, model):
        raise TypeError(f"{title(declared).capitalize()} has {model.__name__} rows.")
    if event not in ("created", "updated", "deleted"):
        raise ValueError(f"event must be created, updated or deleted, not {event!r}.")
    using = using or database_for(type(instance), instance)
    related = [registry.dependency(parent._meta.label) for parent in row_tables(model)]
    captured = dict.fromkeys([declared, *filter(None, related)])
    with write_transaction(using, model):
        for table in watched_tables(captured):
            if event == "deleted":
                record(table, using, [(table.row_of(instance, using), None, "deleted")])
            else:
                key = instance._get_pk_val(table.model._meta)
                rows = table.read(using, [key]).values()
                record(table, using, [(None, row, event) for row in rows])


def permissions_changed(user: Any = None, *, using: str | None = None) -> None:
    """Evaluate the permissions of a user (as in `send_to_user`) again; of all users with None.

    Changes of groups, permissions and staff status are noticed without this function. Call it if
    a permission depends on something else. It takes effect after the commit, in every process.
    Subscriptions that may see the same as before continue without losing an event. If one may
    not, its connection is closed with code 4201, and the client fetches everything again.
    """
    if user is None:
        announce_permissions_changed(None, using)
    else:
        announce_permissions_changed([_user_key(user)], using)


def disconnect(
    *,
    user: Any = None,
    key: str | None = None,
    connection: str | None = None,
    project: str | None = None,
    reconnect: bool = False,
) -> None:
    """Close the connections of a user (as in `send_to_user`), of an API key, or one connection.

    A key is named by its prefix, and a connection by its id, see `connections`.

    They are closed in every process, immediately and without waiting for a commit. The close code
    is 4500, after which clients do not reconnect. With ``reconnect`` it is 4201: clients reconnect
    at once, authenticate again, and load again what they may see then.
    """
    if [user, key, connection].count(None) != 2:
        raise TypeError("Name either a user, a key or a connection.")
    code = CloseCode.PERMISSIONS_CHANGED if reconnect else CloseCode.BAD_CREDENTIAL
    broker.publish(
        DisconnectRequested(
            code=int(code),
            user=None if user is None else _user_key(user),
            credential=None if key is None else f"key:{key}",
            project=project,
            connection=connection,
        )
    )


def _broadcast(room: str, message: Any, project: str) -> Broadcast:
    if not isinstance(room, str) or not room:
        raise TypeError("A room is named by a non-empty string.")
    if not is_valid_text(room):
        raise ValueError("The name of a room must not contain NUL or lone surrogates.")
    return Broadcast(room=room, project=project, message=_json(message), at=now())


def _declared(room: str) -> Room:
    """Return the declaration that applies to a room, or the default one."""
    return room_registry.find(room) or Room()


def _json(message: Any) -> Any:
    """Return a message as a value that JSON can represent.

    Raises ``ValueError`` if it is too large or nested too deeply.
    """
    try:
        try:
            length = len(msgspec.json.encode(message))
        except UnicodeEncodeError:
            message = clean(message)
            length = len(msgspec.json.encode(message))
        except TypeError:
            message = clean(to_json_value(message))
            length = len(msgspec.json.encode(message))
    except RecursionError:
        raise ValueError("A message is nested too deeply.") from None
    limit = conf.limits.event_bytes
    if length > limit:
        raise ValueError(f"A message may have {limit} bytes at most, not {length}.")
    return message


def _user_key(user: Any) -> str:
    """Return `Identity.user_key` of a user, who is named as `send_to_user` describes."""
    if isinstance(user, models.Model):
        return user_key(user.pk)
    if isinstance(user, Identity):
        if user.user_key is None:
            raise TypeError("The identity is an app, not a user.")
        return user.user_key
    return user if isinstance(user, str) else user_key(user)

"""What a project's own code says to clients: from anywhere, sync or async."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from django.db import models, transaction

from .auth.revocation import announce_permissions_changed
from .capture.record import capture_disabled, record_rows, record_save
from .capture.rows import WatchedTable
from .declarations.registry import registry, room_registry
from .declarations.room import Room
from .declarations.serialization import to_json_value
from .events import Broadcast, DirectMessage, DisconnectRequested, now
from .identity import DEFAULT_PROJECT
from .pubsub.broker import broker
from .rooms import publisher
from .rooms.publisher import PublishResult
from .utils.transactions import database_for, write_transaction
from .wire.codes import CloseCode

__all__ = [
    "abroadcast",
    "broadcast",
    "capture_disabled",
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
    """Send ``message`` (anything JSON) to everyone in a room; its ``sender`` is null.

    The room ``"*"`` is the whole project: everyone who is connected. At most once, and without
    waiting: inside a transaction (of database ``using``) it is sent on commit and never after a
    rollback. Of two with the same ``idempotency_key`` within five minutes, in one room, the first
    is sent. ``ephemeral``: a room that keeps history does not keep this. Raises ``TypeError`` for
    what JSON cannot say.
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
    """``broadcast`` from async code, at once; False where the channel layer did not take it."""
    outcome = await publisher.publish(
        _broadcast(room, message, project),
        _declared(room),
        ephemeral=ephemeral,
        idempotency_key=idempotency_key,
    )
    return outcome is not PublishResult.FAILED


def send_to_user(
    user: Any, message: Any, *, project: str = DEFAULT_PROJECT, using: str | None = None
) -> None:
    """Send ``message`` to all connections of a user (instance or id), whatever rooms they are in.

    At most once, and on commit, like ``broadcast``; nothing is kept for a user who is away.
    """
    subject = _subject(user)
    event = DirectMessage(project=project, message=_json(message), at=now(), user=subject)
    transaction.on_commit(lambda: broker.publish(event), using=using, robust=True)


def _broadcast(room: str, message: Any, project: str) -> Broadcast:
    if not isinstance(room, str) or not room:
        raise TypeError("A room is named by a non-empty string.")
    return Broadcast(room=room, project=project, message=_json(message), at=now())


def _declared(room: str) -> Room:
    return room_registry.find(room) or Room()


def _json(message: Any) -> Any:
    try:
        msgspec.json.encode(message)
    except TypeError:
        return to_json_value(message)
    return message


def _subject(user: Any) -> str:
    return str(user.pk if isinstance(user, models.Model) else user)


def notify_change(
    collection: str,
    event: Literal["created", "updated", "deleted"],
    instance: models.Model,
    *,
    using: str | None = None,
) -> None:
    """Announce a change of one row that no signal told of (raw SQL, another program).

    The row is read from the database, for ``deleted`` it is taken from the instance. Sent on
    commit, filtered and permitted like any other change. Raises ``LookupError`` for an unknown
    collection, ``TypeError`` for an instance of another model, ``ValueError`` for another event.
    """
    shown = registry.get(collection)
    if not isinstance(instance, shown.concrete_model):
        raise TypeError(f"Collection {collection!r} shows {shown.concrete_model.__name__} rows.")
    if event not in ("created", "updated", "deleted"):
        raise ValueError(f"event must be created, updated or deleted, not {event!r}.")
    using = using or database_for(type(instance), instance)
    table = WatchedTable(shown.concrete_model, (shown,))
    pk = getattr(instance, shown.concrete_model._meta.pk.attname)
    with write_transaction(using, table.model):
        if event == "deleted":
            row = {name: getattr(instance, name) for name in table.attnames}
            record_rows(table, using, [(row, None)])
        else:
            created = event == "created"
            record_save(table, using, pk, before=None, created=created, instance=None)


def permissions_changed(user: Any = None, *, using: str | None = None) -> None:
    """What a user (instance or id; None: everyone) may see has changed: look at it anew.

    Groups, permissions and staff status are noticed without this; call it where a permission
    looks elsewhere. On commit, in every process: a subscription that may see the same as before
    goes on, nothing lost; otherwise the connection is closed with 4201 and its client fetches
    afresh.
    """
    if user is None:
        announce_permissions_changed(None, using)
    else:
        announce_permissions_changed([user.pk if isinstance(user, models.Model) else user], using)


def disconnect(*, user: Any = None, key: str | None = None, project: str | None = None) -> None:
    """Close the live connections of a user (instance or id) or of an API key (its prefix).

    In every process, at once, with close code 4500, which tells clients not to come back.
    """
    if (user is None) == (key is None):
        raise TypeError("Name either a user or a key.")
    subject = None if user is None else _subject(user)
    credential = None if key is None else f"key:{key}"
    broker.publish(
        DisconnectRequested(
            code=int(CloseCode.BAD_CREDENTIAL), user=subject, credential=credential, project=project
        )
    )

"""``subscribe`` and ``unsubscribe``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..collection import Grant
from ..fanout.subscriptions import EVENTS, Subscription
from ..filters import FilterLimits, InvalidFilter, parse
from ..wire import native
from ..wire.codes import ErrorCode
from ..wire.messages import Subscribe, Unsubscribe
from .effects import Attach, Authorize, Detach, Send, Steps

if TYPE_CHECKING:
    from .machine import Session


def subscribe(session: Session, command: Subscribe) -> Steps:
    """Watch a collection. One of the same name is replaced; a refused one leaves it alone."""
    name = command.subscription or command.collection
    held = session.connection.subscriptions
    if session.too_long(command.collection) or session.too_long(command.subscription):
        yield _limit(session, command, f"Names may have {session.limits.name_bytes} bytes at most.")
        return
    if name not in held and len(held) >= session.limits.subscriptions:
        limit = session.limits.subscriptions
        yield _limit(session, command, f"A connection may have {limit} subscriptions at most.")
        return
    filters = command.filters or {}
    grant: Grant | None = yield Authorize(command.collection, filters)
    if grant is None:
        yield session.error(
            ErrorCode.UNKNOWN_COLLECTION,
            f"There is no collection {command.collection!r} that you may watch.",
            command.id,
        )
        return
    fields = _projection(grant, command.fields)
    if isinstance(fields, str):
        yield session.error(ErrorCode.BAD_REQUEST, fields, command.id)
        return
    limits = session.limits
    try:
        wanted = parse(
            filters,
            grant.schema,
            allowed=grant.filters,
            limits=FilterLimits(limits.filter_clauses, limits.filter_depth, limits.filter_values),
        )
    except InvalidFilter as error:
        yield session.error(ErrorCode.INVALID_FILTER, str(error), command.id)
        return
    yield Attach(
        Subscription(
            connection=session.connection,
            name=name,
            collection=command.collection,
            filter=wanted & grant.visible,
            fields=fields,
            events=EVENTS if command.events is None else frozenset(command.events),
        )
    )
    yield Send(
        native.reply(
            "subscribed",
            command.id,
            collection=command.collection,
            subscription=name,
            filters=filters,
        )
    )


def _projection(grant: Grant, asked: list[str] | None) -> tuple[str, ...] | str | None:
    """The fields of ``data``, or a sentence that says what is wrong with those asked for."""
    if asked is None:
        return grant.fields
    if grant.fields is None:
        return tuple(sorted(set(asked)))
    wanted = set(asked)
    unknown = sorted(wanted - set(grant.fields))
    if unknown:
        return f"Unknown fields {unknown}; readable are {list(grant.fields)}."
    return tuple(name for name in grant.fields if name in wanted)


def _limit(session: Session, command: Subscribe, message: str) -> Send:
    return session.error(ErrorCode.LIMIT_EXCEEDED, message, command.id)


def unsubscribe(session: Session, command: Unsubscribe) -> Steps:
    """Stop one subscription by name, or all those of a collection."""
    held = session.connection.subscriptions
    if (command.subscription is None) == (command.collection is None):
        yield session.error(
            ErrorCode.BAD_REQUEST, "Name either a subscription or a collection.", command.id
        )
        return
    if command.subscription is not None:
        found = [s for s in held.values() if s.name == command.subscription]
        named = {"subscription": command.subscription}
    else:
        found = [s for s in held.values() if s.collection == command.collection]
        named = {"collection": str(command.collection)}
    if not found:
        yield session.error(
            ErrorCode.NOT_SUBSCRIBED,
            "There is no such subscription on this connection.",
            command.id,
        )
        return
    for subscription in found:
        yield Detach(subscription)
    yield Send(native.reply("unsubscribed", command.id, **named))

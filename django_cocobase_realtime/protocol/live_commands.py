"""Requests for live queries: windows and aggregates. The functions check them."""

from __future__ import annotations

from collections.abc import Sequence

from ..declarations.authorization import Grant
from ..declarations.collection import Collection
from ..declarations.registry import registry
from ..delivery.query import SubscriptionRefused
from ..filters.order import InvalidOrder, Order, parse_order
from ..live_queries import page_cursor
from ..live_queries.page_cursor import InvalidPageCursor
from ..live_queries.queries import AggregateQuery, LiveQuery, WindowQuery
from ..live_queries.requests import InvalidAggregate, parse_aggregate
from ..log.row_order import RowOrder
from ..wire.codes import ErrorCode
from ..wire.commands import Aggregate, Subscribe, Window
from .state import SessionState


def live_query(session: SessionState, command: Subscribe, grant: Grant) -> LiveQuery | None:
    """Return the live query in a request, or None. Raises `SubscriptionRefused`."""
    if command.window is None and command.aggregate is None:
        return None
    kind = "window" if command.aggregate is None else "aggregate"
    others = {
        "window": command.window is not None and kind == "aggregate",
        "snapshot": command.snapshot is not False,
        "events": command.events is not None,
        "changed": command.changed is not None,
        "transitions": command.transitions,
        "fields": command.fields is not None and kind == "aggregate",
    }
    surplus = sorted(name for name, is_present in others.items() if is_present)
    if surplus:
        message = f"{kind} cannot be combined with {', '.join(surplus)}."
        raise SubscriptionRefused(ErrorCode.BAD_REQUEST, message)
    collection = registry.get(grant.stream)
    reason = _missing_condition(collection, grant)
    if reason is not None:
        message = f"{kind} is not available: {reason}."
        raise SubscriptionRefused(ErrorCode.BAD_REQUEST, message)
    if command.aggregate is not None:
        return aggregate_query(command.aggregate, grant)
    assert command.window is not None
    return _window_query(session, command.window, grant, collection)


def _missing_condition(collection: Collection, grant: Grant) -> str | None:
    """Return why a collection has no live queries, or None if it has them.

    Row permissions are refused by `authorize_query`, also after a change of rights.
    """
    if not collection.durable:
        return "this collection keeps no log of its changes"
    if not grant.tracked:
        return "this collection keeps no old values"
    return None


def _window_query(
    session: SessionState, window: Window, grant: Grant, collection: Collection
) -> WindowQuery:
    max_documents = session.limits.snapshot_documents
    if window.limit is not None and window.limit > max_documents:
        message = f"A window may have {max_documents} documents at most."
        raise SubscriptionRefused(ErrorCode.LIMIT_EXCEEDED, message)
    order = read_order(window.order, grant)
    try:
        row_order = RowOrder(collection, order)
    except InvalidOrder as error:
        raise SubscriptionRefused(ErrorCode.BAD_REQUEST, str(error)) from None
    try:
        after = None
        if window.after is not None:
            after = page_cursor.decode(grant.stream, order, window.after)
            # the fields may have been changed since
            row_order.place_of_values(after)
    except (InvalidPageCursor, InvalidOrder):
        message = "after is not the cursor of a page of this collection in this order."
        raise SubscriptionRefused(ErrorCode.BAD_REQUEST, message) from None
    return WindowQuery(window.limit or max_documents, order, after)


def aggregate_query(aggregate: Aggregate, grant: Grant) -> AggregateQuery:
    """Return the aggregates in a request. Raises `SubscriptionRefused` if they are not allowed."""
    try:
        return parse_aggregate(aggregate, grant.schema, grant.aggregates, grant.filters)
    except InvalidAggregate as error:
        raise SubscriptionRefused(ErrorCode.BAD_REQUEST, str(error)) from None


def read_order(order: str | Sequence[str] | None, grant: Grant) -> Order:
    """Return the order in a request. Raises `SubscriptionRefused` if it is not allowed."""
    try:
        return parse_order(order, grant.schema, grant.order_fields)
    except InvalidOrder as error:
        raise SubscriptionRefused(ErrorCode.BAD_REQUEST, str(error)) from None

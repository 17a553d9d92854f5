"""A change as text, encoded once for each shape in which somebody must see it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..events import Change
from ..log.cursor import encode as encode_cursor
from ..transport.connection import NATIVE
from ..wire import frames
from .cohort import FrameSpec
from .sdk_event_frames import encode_sdk_change, shows_old_values
from .table import Delivery, Subscription

FrameKey = tuple[str, tuple[str, ...] | None, str, tuple[str, ...]]
"""(dialect, projection, name of the event, names of the connection's matching subscriptions)."""


class ChangeFrames:
    """Encodes one change; the same shape is encoded once, whatever the number of readers."""

    __slots__ = ("_change", "_max_bytes", "_replayed", "_texts", "cursor")

    def __init__(self, change: Change, max_bytes: int, *, replayed: bool = False) -> None:
        self._change = change
        self._max_bytes = max_bytes
        self._replayed = replayed
        self._texts: dict[FrameKey, str] = {}
        self.cursor = cursor_of(change)

    def text(self, shape: FrameSpec, event: str) -> str:
        """The frame for a connection with one matching subscription, of this shape."""
        return self._text((shape.dialect, shape.fields, event, shape.subscriptions))

    def texts(self, deliveries: Iterable[Delivery]) -> list[str]:
        """The frames that one connection gets for its matching subscriptions.

        One frame, unless they project differently or are told another event: then one of each.
        """
        looks: dict[tuple[str, tuple[str, ...] | None, str], list[str]] = {}
        for subscription, event in deliveries:
            if subscription.connection.dialect != NATIVE:
                return [self._sdk(subscription)]
            look = (subscription.connection.dialect, subscription.query.fields, event)
            looks.setdefault(look, []).append(subscription.name)
        return [self._text((*look, tuple(names))) for look, names in looks.items()]

    def _text(self, look: FrameKey) -> str:
        text = self._texts.get(look)
        if text is None:
            text = self._texts[look] = self._encode(look)
        return text

    def _sdk(self, subscription: Subscription) -> str:
        """For a connection of the published SDKs, which has one subscription."""
        change, fields = self._change, subscription.query.fields
        old = shows_old_values(change, subscription)
        look = (subscription.connection.dialect, fields, "old" if old else "", ())
        text = self._texts.get(look)
        if text is None:
            data = data_of(change, fields)
            text = encode_sdk_change(change, fields, data, old=old, max_bytes=self._max_bytes)
            self._texts[look] = text
        return text

    def _encode(self, look: FrameKey) -> str:
        _, fields, event, names = look
        frame = self._frame(fields, event, names)
        text = frames.encode(frame)
        if len(text) > self._max_bytes or len(text.encode()) > self._max_bytes:
            # never silently dropped: the reader learns that there is something to fetch
            frame["document"] = {"id": self._change.document_id}
            frame["truncated"] = True
            text = frames.encode(frame)
        return text

    def _frame(
        self, fields: tuple[str, ...] | None, event: str, names: tuple[str, ...]
    ) -> frames.Frame:
        change = self._change
        document: dict[str, Any] = {"id": change.document_id}
        changed = None
        if event != "left":  # whoever it leaves must not see what it has become
            data = document["data"] = data_of(change, fields)
            if change.changed is not None and event in ("updated", "entered"):
                changed = tuple(name for name in change.changed if name in (fields or data))
        return frames.change(
            collection=change.collection,
            event=event,
            document=document,
            subscriptions=names,
            at=change.at,
            transaction=change.transaction,
            changed=changed,
            cursor=self.cursor,
            replayed=self._replayed,
        )


def cursor_of(change: Change) -> str | None:
    """The change's place in its stream as clients hold it; None where no log keeps it."""
    if change.epoch is None or change.seq is None:
        return None
    return encode_cursor(change.collection, change.epoch, change.seq)


def data_of(change: Change, fields: tuple[str, ...] | None) -> dict[str, Any]:
    """The readable part of the row as it is after the change (before it, if deleted)."""
    if change.document is not None:
        document = change.document
        return document if fields is None else _only(document, fields)
    if fields is None:
        return {}  # logged before there was a serializer: only that knows what may be shown
    return _only((change.before if change.op == "deleted" else change.after) or {}, fields)


def _only(values: dict[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    return {name: values[name] for name in fields if name in values}

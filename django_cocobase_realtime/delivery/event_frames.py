"""Encoding of a change as frames, once for each form in which subscribers need it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..declarations.collection import Collection
from ..declarations.registry import registry
from ..events import Change
from ..log.cursor import encode as encode_cursor
from ..transport.connection import NATIVE
from ..wire import frames, sdk_frames
from .cohort import FrameSpec
from .subscription import Delivery, Subscription

FrameKey = tuple[str, str, tuple[str, ...] | None, str, tuple[str, ...]]
"""The values that a frame depends on.

The dialect, the name of the collection, the fields in ``data``, the name of the event, and the
names of the matching subscriptions.
"""


class ChangeFrames:
    """The frames of one change. Each form is encoded once, for any number of connections."""

    __slots__ = ("_change", "_max_bytes", "_replayed", "_texts", "cursor")

    def __init__(self, change: Change, max_bytes: int, *, replayed: bool = False) -> None:
        self._change = change
        # in a larger frame, the document is reduced to its id and `"truncated": true`
        self._max_bytes = max_bytes
        # whether the frames are flagged as missed by the client
        self._replayed = replayed
        # encoded frames by their form
        self._texts: dict[FrameKey, str] = {}
        # cursor of the change; None if it is not logged
        self.cursor = cursor_of(change)

    @property
    def forms(self) -> int:
        """Number of forms in which the change was encoded."""
        return len(self._texts)

    def text(self, frame_spec: FrameSpec, event: str) -> str:
        """Return the frame for connections with one matching subscription of this spec."""
        spec = frame_spec
        return self._text((spec.dialect, spec.collection, spec.fields, event, spec.subscriptions))

    def texts(self, deliveries: Iterable[Delivery]) -> list[str]:
        """Return the frames that one connection gets for its matching subscriptions.

        Subscriptions to the same fields that get the same event are named in one frame.
        """
        names: dict[tuple[str, str, tuple[str, ...] | None, str], list[str]] = {}
        for subscription, event in deliveries:
            if subscription.connection.dialect != NATIVE:
                return [self._sdk_text(subscription)]
            dialect, collection = subscription.connection.dialect, subscription.collection
            key = (dialect, collection, subscription.query.fields, event)
            names.setdefault(key, []).append(subscription.name)
        return [self._text((*key, tuple(matching))) for key, matching in names.items()]

    def _text(self, key: FrameKey) -> str:
        text = self._texts.get(key)
        if text is None:
            text = self._texts[key] = self._encode(key)
        return text

    def _encode(self, key: FrameKey) -> str:
        _, collection, fields, event, names = key
        frame = self._frame(collection, fields, event, names)
        text = frames.encode(frame)
        if len(text) > self._max_bytes or len(text.encode()) > self._max_bytes:
            # without the data, the client still learns that it should fetch the document
            frame["document"] = {"id": self._change.document_id}
            frame["truncated"] = True
            text = frames.encode(frame)
        return text

    def _frame(
        self,
        collection: str,
        fields: tuple[str, ...] | None,
        event: str,
        names: tuple[str, ...],
    ) -> frames.Frame:
        change = self._change
        # after "left", the client may not see the row
        left = event == "left"
        document = {"id": change.document_id} if left else document_of(change, fields)
        data, changed = document.get("data"), None
        if data is not None and change.changed is not None and event in ("updated", "entered"):
            changed = tuple(name for name in change.changed if name in (fields or data))
        return frames.change(
            collection=collection,
            event=event,
            document=document,
            subscriptions=names,
            at=change.at,
            transaction=change.transaction,
            changed=changed,
            cursor=self.cursor,
            replayed=self._replayed,
        )

    # frames for SDKs, whose connections have one subscription

    def _sdk_text(self, subscription: Subscription) -> str:
        change, fields = self._change, subscription.query.fields
        with_old = _sees_old_values(change, subscription)
        name = subscription.collection
        key = (subscription.connection.dialect, name, fields, "old" if with_old else "", ())
        text = self._texts.get(key)
        if text is None:
            text = self._texts[key] = self._encode_sdk(name, fields, with_old=with_old)
        return text

    def _encode_sdk(self, name: str, fields: tuple[str, ...] | None, *, with_old: bool) -> str:
        change = self._change
        collection = registry.get(change.collection)
        data = {} if change.has_failed_document else data_of(change, fields)
        image = (change.before if change.op == "deleted" else change.after) or {}
        created_at, updated_at = (
            _time(collection, field, image, data) for field in collection.time_fields
        )
        old = None
        if with_old and fields is not None and change.before and change.changed is not None:
            old = _only(change.before, tuple(n for n in change.changed if n in fields))
        frame = sdk_frames.change(
            collection=name,
            op=change.op,
            id=change.document_id,
            data=data,
            created_at=created_at,
            updated_at=updated_at,
            old=old,
            failed=change.has_failed_document,
        )
        text = frames.encode(frame)
        if len(text.encode()) <= self._max_bytes:
            return text
        frame = sdk_frames.change(
            collection=name,
            op=change.op,
            id=change.document_id,
            data={},
            created_at=created_at,
            updated_at=updated_at,
        )
        frame["truncated"] = True
        return frames.encode(frame)


def _sees_old_values(change: Change, subscription: Subscription) -> bool:
    """Return whether a subscription may also see the row as it was before an update.

    With a row permission it may not, because the permission was not evaluated for the old row.
    """
    if change.op != "updated" or change.before is None or change.document is not None:
        return False
    query = subscription.query
    if query.check is not None or query.fields is None:
        return False
    return query.filter.matches(registry.get(change.collection).row(change.before))


def _time(
    collection: Collection, name: str | None, image: dict[str, Any], data: dict[str, Any]
) -> str | None:
    """Return the value of a time field, if the field is declared as such or is readable."""
    if name is None or (name not in collection.declared_time_fields and name not in data):
        return None
    value = image.get(name)
    return value if isinstance(value, str) else None


def cursor_of(change: Change) -> str | None:
    """Return the cursor of a change, or None if it is not logged."""
    if change.epoch is None or change.seq is None:
        return None
    return encode_cursor(change.collection, change.epoch, change.seq)


def document_of(change: Change, fields: tuple[str, ...] | None) -> dict[str, Any]:
    """Return the document as clients are sent it: ``id`` and ``data``.

    If the serializer raised, it has ``"error": true`` instead of ``data``.
    """
    if change.has_failed_document:
        return {"id": change.document_id, "error": True}
    return {"id": change.document_id, "data": data_of(change, fields)}


def data_of(change: Change, fields: tuple[str, ...] | None) -> dict[str, Any]:
    """Return the readable fields of the row after a change, or before it for a deletion.

    ``fields`` are the names of the readable fields; None for all that the serializer returned.
    """
    if change.document is not None:
        document = change.document
        return document if fields is None else _only(document, fields)
    if fields is None:
        return {}  # logged before the serializer, which selects the fields, was declared
    image = (change.before if change.op == "deleted" else change.after) or {}
    return _only(image if change.related is None else {**image, **change.related}, fields)


def _only(values: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}

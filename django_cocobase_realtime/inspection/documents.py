"""The steps of an explanation that look at a row: as it is now, or in a logged event."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ..declarations.collection import Collection
from ..declarations.soft_delete import apply_soft_delete
from ..delivery.incomplete_images import find_undecidable, restore
from ..delivery.row_permissions import evaluate
from ..delivery.subscription import Subscription
from ..events import Change, Image
from ..filters import Filter
from ..log.as_of import images_as_of
from ..log.cursor import encode
from ..log.reader import StreamRange, read_events, stream_ranges
from ..log.resume import Resync, resume_position
from ..models import LogEvent
from .clauses import Clauses
from .findings import Finding
from .permission_trees import PermissionTree

# why a client cannot continue before an event, by the reason for the resync
_REASONS = {
    "invalid_cursor": "this is not a cursor of the collection's stream",
    "epoch_changed": "the epoch of the stream has changed since",
    "ahead_of_head": "the stream has not come to this number",
    "retention": "the log was trimmed, and no longer contains it",
}


class DocumentSteps:
    """Judges rows by the query of a subscription, and collects the findings."""

    def __init__(
        self,
        collection: Collection,
        subscription: Subscription,
        requested: Filter,
        tree: PermissionTree,
        clauses: Clauses,
    ) -> None:
        self._collection = collection
        self._subscription = subscription
        identity = subscription.connection.identity
        self._project = None if identity is None else identity.project
        # the client's filter alone
        self._requested = requested
        self._tree = tree
        self._clauses = clauses
        # the findings so far
        self.findings: list[Finding] = []

    def now(self, document: str | None) -> str | None:
        """Return the event that the client would get for an update of the row as it is now."""
        if document is None:
            self._note(False, "document: no document is named")
            return None
        collection = self._collection
        stored = self._read(document)
        if stored is None:
            self._last_event(document)
            return None
        change = Change(
            id="",
            collection=collection.stream,
            op="updated",
            document_id=document,
            transaction="",
            at=datetime.now(UTC).isoformat(),
            before=stored,
            after=stored,
        )
        event = self._judge(change, "document")
        self._last_event(document)
        return event

    def _read(self, document: str) -> Image | None:
        """Return the stored image of the row as it is now, or None."""
        collection = self._collection
        key = collection.codec.key(document)
        if key is None:
            self._note(False, f"document: no row can have the id {document!r}")
            return None
        stored = images_as_of(collection, [key], None).get(document)
        if stored is None:
            label = collection.concrete_model._meta.label
            self._note(False, f"document: {label} has no row with the id {document!r}")
        return stored

    def logged(self, event: str, document: str | None) -> str | None:
        """Return the event that the client gets for a logged change."""
        collection = self._collection
        if not collection.durable:
            self._note(False, "log: the collection has durable = False, so its log has no events")
            return None
        seq = self._find(event, document)
        if seq is None:
            return None
        using, stream = collection.database, collection.stream
        available = self._range()
        changes = []
        if available is not None:
            changes = read_events(using, stream, available.epoch, seq - 1, 1, until=seq)
        if not changes:
            self._note(False, f"log: event {seq} is not in the log any more")
            return None
        (change,) = restore(collection, changes)
        if document is not None and change.document_id != document:
            text = f"log: event {seq} is about the document {change.document_id!r}"
            self._note(False, text)
            return None
        text = f"log: event {seq} of {change.at} is {change.op!r} of {change.document_id!r}"
        if change.changed is not None:
            text = f"{text}; changed: {', '.join(change.changed) or 'nothing'}"
        self._note(True, text)
        if find_undecidable(collection, change, [self._subscription.query]):
            text = "log: an older version of the code wrote it without fields that decide: resync"
            self._note(False, text)
            return None
        return self._judge(change, "event")

    def _find(self, event: str, document: str | None) -> int | None:
        """Return the number of an event that is in the log, or None."""
        stream = self._collection.stream
        if event == "last":
            row = None if document is None else self._last_row(document)
            if row is None:
                self._note(False, "log: it contains no event of the document")
                return None
            if row[1] is None:
                text = "log: the last event of the document has no number yet, so no server has it"
                self._note(False, text)
                return None
            event = str(row[1])
        available = self._range()
        if available is None:
            self._note(False, f"log: no event of the stream {stream!r} was ever numbered")
            return None
        cursor = event
        if event.isdecimal():
            cursor = encode(stream, available.epoch, int(event))
        try:
            position = resume_position(stream, cursor, available)
        except Resync as resync:
            reason = _REASONS.get(resync.reason, resync.reason)
            self._note(False, f"log: {reason}; clients resync ({resync.reason})")
            return None
        if position.seq <= available.floor:
            self._note(False, f"log: {_REASONS['retention']}")
            return None
        return position.seq

    def _range(self) -> StreamRange | None:
        collection = self._collection
        return stream_ranges(collection.database, [collection.stream]).get(collection.stream)

    # the row

    def _judge(self, change: Change, noun: str) -> str | None:
        """Return the event that the subscription gets for a stored change."""
        collection, subscription = self._collection, self._subscription
        decoded = collection.decode(change)
        visible = apply_soft_delete(decoded, collection)
        if visible is None:
            self._note(False, "soft delete: the row counts as deleted")
            return None
        if visible.op != change.op:
            self._note(None, f"soft delete: clients see it as {visible.op!r}")
        deliveries = evaluate(collection, visible, [subscription])
        event = deliveries[0][1] if deliveries else None
        if visible.before is visible.after or visible.before == visible.after:
            self.findings += self._row_findings(visible.after or {})
        else:
            self._note_images(visible, event)
        if event is None and all(finding.passes is not False for finding in self.findings):
            self._note(False, self._why_no_event(visible))
        if event is not None:
            self._note(True, f"{noun}: the client gets {event!r}")
        return event

    def _note_images(self, change: Change, event: str | None) -> None:
        """Note how the rows before and after a change are judged."""
        for name, image in (("before", change.before), ("after", change.after)):
            if image is None:
                continue
            findings = self._row_findings(image)
            shows = all(finding.passes is not False for finding in findings)
            # the row before a change decides only about a deletion, and otherwise whether the
            # event is "entered" or "left"
            decides = (name == "before") is (change.op == "deleted") and (shows or event is None)
            text = f"row {name} the change: {'visible' if shows else 'not visible'}"
            self.findings.append(Finding(shows if decides else None, text, tuple(findings)))

    def _row_findings(self, image: Image) -> list[Finding]:
        """Return how the permission, the project and the client's filter judge a row."""
        collection = self._collection
        row, instance = collection.row(image), self._instance(image)
        findings = [self._tree.row(self._clauses, row, instance)]
        permission = findings[0]
        findings[0] = Finding(permission.passes, f"permission: {permission.text}", permission.parts)
        if collection.project_field is not None:
            same = collection.parse_trusted_filter({collection.project_field: self._project})
            findings.append(self._filter("project", same, image))
        if self._requested != Filter.everything():
            findings.append(self._filter("filter of the client", self._requested, image))
        return findings

    def _filter(self, noun: str, filter: Filter, image: Image) -> Finding:
        row = self._collection.row(image)
        matches = filter.matches(row)
        text = f"{noun}: {'the row matches' if matches else 'the row does not match'}"
        return Finding(matches, text, self._clauses.findings(filter, row))

    def _instance(self, image: Image) -> Any:
        collection = self._collection
        try:
            return collection.codec.to_instance(
                collection.model_class, image, collection.database, decoded=True
            )
        except Exception:
            return None

    def _why_no_event(self, change: Change) -> str:
        request = self._subscription.request
        if change.op not in request.events:
            return f"events: the subscription does not ask for {change.op!r}"
        if request.changed is not None and change.changed is not None:
            return f"changed: none of {', '.join(sorted(request.changed))} has changed"
        return "events: the row is not visible on the side of the change that counts"

    # the log

    def _last_row(self, document: str) -> tuple[Any, ...] | None:
        collection = self._collection
        rows = LogEvent.objects.using(collection.database).filter(
            collection=collection.stream, document_id=document
        )
        return rows.order_by("-id").values_list("id", "seq", "op", "created_at").first()

    def _last_event(self, document: str) -> None:
        """Note where the last event of a document is in the log."""
        if not self._collection.durable:
            self._note(None, "log: none, since the collection has durable = False")
            return
        last, available = self._last_row(document), self._range()
        if last is None:
            floor = 0 if available is None else available.floor
            trimmed = f"; events up to number {floor} were trimmed" if floor else ""
            self._note(None, f"log: no event of the document{trimmed}")
            return
        _, seq, op, at = last
        if seq is None:
            text = f"log: the last event, {op!r} of {at.isoformat()}, has no number yet"
            self._note(None, f"{text}: no server has delivered it")
            return
        epoch = "" if available is None else f" of epoch {available.epoch}"
        self._note(None, f"log: the last event, {op!r} of {at.isoformat()}, is number {seq}{epoch}")

    def _note(self, passes: bool | None, text: str) -> None:
        self.findings.append(Finding(passes, text))

"""The live subscriptions to one collection, with an index that finds those that a change matches.

The index is over the filters of subscriptions, which combine that of the client and that of the
permission. It proposes filters for a row, and each of these is evaluated once, for any number of
subscriptions with the same filter. The cost of a change therefore grows with the subscriptions
that match it, and not with all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from weakref import WeakValueDictionary

from ..events import Change, Image
from ..filters import Filter, FilterIndex, Row, Schema
from ..transport.connection import NATIVE, Connection
from ..utils.small_set import SmallSet, add_to, items, length, remove_from
from .cohort import Cohort, DeliveryMode, FrameSpec, Recipients
from .subscription import Delivery, Subscription

SubscriptionCohort = Cohort[Subscription]

# constants, because access to a member of an enum is slow
_DIRECT = DeliveryMode.DIRECT
_PER_CONNECTION = DeliveryMode.PER_CONNECTION
_ROW_CHECKED = DeliveryMode.ROW_CHECKED


class SubscriptionTable:
    """The live subscriptions of one process to one collection."""

    def __init__(self, schema: Schema) -> None:
        # the fields of the collection and their kinds
        self.schema = schema
        # cohorts by filter, except those of the two other indexes
        self._plain: FilterIndex[SubscriptionCohort] = FilterIndex()
        # cohorts whose subscriptions request transitions, by filter
        self._transitions: FilterIndex[SubscriptionCohort] = FilterIndex()
        # cohorts with row permissions, by the filter of the permission
        self._row_checked: FilterIndex[SubscriptionCohort] = FilterIndex()
        # all cohorts, by what their subscriptions have in common
        self._cohorts: dict[tuple[Filter, FrameSpec, DeliveryMode], SubscriptionCohort] = {}
        # frame specs, to use one object for equal ones
        self._frame_specs: WeakValueDictionary[FrameSpec, FrameSpec] = WeakValueDictionary()
        # subscriptions without row permissions, by connection
        self._by_connection: dict[Connection, SmallSet[Subscription]] = {}
        # number of subscriptions
        self.size = 0

    def __iter__(self) -> Iterator[Subscription]:
        return iter([member for cohort in self._cohorts.values() for member in cohort])

    @property
    def cohort_count(self) -> int:
        """Number of cohorts."""
        return len(self._cohorts)

    def add(self, subscription: Subscription) -> None:
        """Add a subscription, or move it to another cohort if its query or buffer has changed."""
        self.discard(subscription)
        query, connection = subscription.query, subscription.connection
        indexes = (self._plain, self._transitions, self._row_checked)
        equal = next(filter(None, (index.find_equal(query.filter) for index in indexes)), None)
        if equal is not None:  # use one object for equal filters, to save memory
            subscription.query = replace(query, filter=equal)
        if query.check is not None:
            permitted = self._row_checked.find_equal(query.candidates)
            if permitted is not None:
                subscription.query = replace(subscription.query, permitted=permitted)
            self._add_to_cohort(subscription, _ROW_CHECKED)
            return
        add_to(self._by_connection, connection, subscription)
        siblings = self._by_connection[connection]
        match length(siblings):
            case 1:
                self._add_to_cohort(subscription, _mode_of_only(subscription))
            case 2:
                for sibling in items(siblings):
                    self._remove_from_cohort(sibling)
                    self._add_to_cohort(sibling, _PER_CONNECTION)
            case _:
                self._add_to_cohort(subscription, _PER_CONNECTION)

    def discard(self, subscription: Subscription) -> None:
        """Remove a subscription, if it is in the table."""
        cohort = subscription.cohort
        if cohort is None:
            return
        self._remove_from_cohort(subscription)
        if cohort.mode is _ROW_CHECKED:
            return
        remove_from(self._by_connection, subscription.connection, subscription)
        siblings = self._by_connection.get(subscription.connection)
        if length(siblings) == 1:
            (only,) = items(siblings)
            self._remove_from_cohort(only)
            self._add_to_cohort(only, _mode_of_only(only))

    def _add_to_cohort(self, subscription: Subscription, mode: DeliveryMode) -> None:
        query, frame_spec = subscription.query, subscription.frame_spec
        # the client's filter must not decide which rows a row permission is asked about
        filter = query.candidates if mode is _ROW_CHECKED else query.filter
        frame_spec = self._frame_specs.setdefault(frame_spec, frame_spec)
        key = (filter, frame_spec, mode)
        cohort = self._cohorts.get(key)
        if cohort is None:
            cohort = self._cohorts[key] = Cohort(*key)
            self._index(cohort).add(cohort, filter)
        cohort.add(subscription)
        subscription.cohort = cohort
        self.size += 1

    def _remove_from_cohort(self, subscription: Subscription) -> None:
        cohort = subscription.cohort
        if cohort is None:
            return
        subscription.last_seq = max(subscription.last_seq, cohort.last_seq)
        subscription.cohort = None
        self.size -= 1
        if cohort.discard(subscription):
            del self._cohorts[cohort.filter, cohort.frame_spec, cohort.mode]
            self._index(cohort).discard(cohort, cohort.filter)

    def _index(self, cohort: SubscriptionCohort) -> FilterIndex[SubscriptionCohort]:
        if cohort.mode is _ROW_CHECKED:
            return self._row_checked
        return self._transitions if cohort.frame_spec.transitions else self._plain

    def last_seq(self, subscription: Subscription) -> int:
        """Return the number of the last event that was delivered to a subscription."""
        cohort, seq = subscription.cohort, subscription.last_seq
        return seq if cohort is None else max(seq, cohort.last_seq)

    # matching

    def find_recipients(self, change: Change) -> tuple[list[Recipients], list[Delivery]]:
        """Return where to deliver a change: writers that share a frame, and single deliveries.

        Single deliveries are those for which frames are built per connection. Subscriptions with
        row permissions are not included, see `find_row_checked`.
        """
        before, after = self.row(change.before), self.row(change.after)
        deleted = change.op == "deleted"
        row = before if deleted else after
        recipients: list[Recipients] = []
        single: list[Delivery] = []
        if row is not None and self._plain:
            cohorts = self._plain.matching(row)
            recipients += _collect(change, cohorts, deleted, not deleted, single)
        if self._transitions:
            old = {} if before is None else dict.fromkeys(self._transitions.matching(before))
            new = {} if after is None else dict.fromkeys(self._transitions.matching(after))
            recipients += _collect(change, [c for c in old if c in new], True, True, single)
            recipients += _collect(change, [c for c in old if c not in new], True, False, single)
            recipients += _collect(change, [c for c in new if c not in old], False, True, single)
        return recipients, single

    def find_row_checked(self, change: Change) -> list[Subscription]:
        """Return the subscriptions whose row permission must be asked about the old or new row."""
        if not self._row_checked:
            return []
        cohorts: dict[SubscriptionCohort, None] = {}
        for row in (self.row(change.before), self.row(change.after)):
            if row is not None:
                cohorts |= dict.fromkeys(self._row_checked.matching(row))
        return [member for cohort in cohorts for member in cohort]

    def event_for(self, subscription: Subscription, change: Change) -> str | None:
        """Return the name of the event that a subscription gets by its filter, or None."""
        before, after = self.row(change.before), self.row(change.after)
        is_match = subscription.query.filter.matches
        matched = before is not None and is_match(before)
        matches = after is not None and is_match(after)
        return subscription.frame_spec.event_for(change, matched, matches)

    def row(self, image: Image | None) -> Row | None:
        """Return an image as a `Row`, which filters are evaluated on."""
        return None if image is None else Row(image, self.schema)


def _mode_of_only(subscription: Subscription) -> DeliveryMode:
    """Return the mode for a subscription that is the only one of its connection.

    It cannot share frames with other connections if it buffers them, or if it is an SDK's, because
    these frames depend on whether the old row matched.
    """
    shareable = subscription.buffer is None and subscription.connection.dialect == NATIVE
    return _DIRECT if shareable else _PER_CONNECTION


def _collect(
    change: Change,
    cohorts: Iterable[SubscriptionCohort],
    matched: bool,
    matches: bool,
    single: list[Delivery],
) -> list[Recipients]:
    """Return where to deliver a change in cohorts of which all members get the same frame.

    The writers are grouped by frame spec. For other cohorts, a delivery per member is appended to
    ``single``. ``matched`` and ``matches`` are whether the row before and after the change matches
    the filters of these cohorts.
    """
    by_spec: dict[FrameSpec, Recipients | None] = {}
    last_spec: FrameSpec | None = None
    recipients: Recipients | None = None
    seq = change.seq or 0
    for cohort in cohorts:
        frame_spec = cohort.frame_spec
        # mostly it is the same as that of the last cohort, which saves a slow dictionary lookup
        if frame_spec is not last_spec:
            last_spec = frame_spec
            if frame_spec not in by_spec:
                event = frame_spec.event_for(change, matched, matches)
                by_spec[frame_spec] = None if event is None else Recipients(frame_spec, event)
            recipients = by_spec[frame_spec]
        if recipients is None:
            continue
        if cohort.mode is _DIRECT:
            cohort.last_seq = seq
            cohort.add_writers(recipients.writers)
        else:
            single += [(subscription, recipients.event) for subscription in cohort]
    return [group for group in by_spec.values() if group is not None and group.writers]

"""The rights of subscriptions: when they are suspended, and how they continue.

A subscription is suspended while the permissions of its connection are evaluated again. It is
frozen while a key set of its permission is outdated, because a related row has changed (see
`relations.key_sets`). Either way delivery stops in the same iteration of the event loop, and
continues from there: as before if its rights are the same, otherwise after its client was sent the
difference (see `rights_changes`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from ..declarations.dependency_table import hidden_stream
from ..events import Change
from ..relations.key_sets import KeySets, RelatedKeySet, read_keys, store
from ..transport.connection import NATIVE
from ..utils.concurrency import run_in_threadpool, set_owner
from ..utils.fair_queue import Owner
from ..utils.repeated_log import log_repeated
from ..utils.small_set import SmallSet, add_to, items, remove_from
from ..wire.codes import CloseCode
from . import catchup
from .query import AuthorizedQuery, current_scope
from .rights_changes import plan_rights_change
from .subscription import CatchUp, CatchUpPlan, Subscription
from .topic import CollectionTopic

logger = logging.getLogger(__name__)

# sets that are read at a time
BATCH_SIZE = 1000
# seconds after which all sets of a database count as outdated, if it is not known by then which
# of them a change concerns
MAX_SEARCH = 1.0
# seconds before sets are read again after an exception of the database
RETRY_INTERVAL = 1.0


class SubscriptionRights:
    """The rights of the subscriptions of an event loop.

    ``topics`` are the topics by stream. ``run`` calls a function in the thread that reads the log
    of a database. ``end`` ends a subscription one of whose key sets has more keys than allowed.
    """

    def __init__(
        self,
        topics: Mapping[str, CollectionTopic],
        *,
        run: Callable[..., Awaitable[Any]],
        end: Callable[[Subscription], None],
    ) -> None:
        self._topics = topics
        self._run = run
        self._end = end
        # the key sets of permissions
        self.key_sets = KeySets()
        # subscriptions by key set
        self._subscriptions: dict[RelatedKeySet, SmallSet[Subscription]] = {}
        # sets that must be read again, by alias of the database, in the order of the requests
        self._outdated: dict[str, dict[RelatedKeySet, None]] = {}
        # tasks that read them, by alias of the database
        self._tasks: dict[str, asyncio.Task[None]] = {}

    # subscriptions

    def start(
        self, subscription: Subscription, plan: CatchUpPlan | None, *, suspended: bool
    ) -> None:
        """Start the delivery to a new subscription, after ``plan`` has been carried out.

        If it is ``suspended``, or an outdated key set freezes it, this happens later.
        """
        topic = self._topics[subscription.stream]
        subscription.is_suspended = suspended
        subscription.scope = subscription.query.scope
        self._add(subscription)
        is_current = not _is_frozen(subscription) and not _has_new_scope(subscription)
        if plan is not None:
            subscription.catchup = CatchUp(plan)
        else:
            catchup.go_live(subscription, topic)
            if suspended or not is_current:
                catchup.suspend(subscription, topic)  # events from now on follow with `resume`
        if not is_current:
            self._continue(subscription)
        elif plan is not None and not suspended:
            catchup.start(subscription, topic, plan)

    def discard(self, subscription: Subscription) -> None:
        """Forget a subscription."""
        for key_set in _key_sets(subscription):
            remove_from(self._subscriptions, key_set, subscription)

    def suspend(self, subscription: Subscription) -> None:
        """Stop delivering to a subscription immediately, until `resume`."""
        subscription.is_suspended = True
        catchup.suspend(subscription, self._topics[subscription.stream])

    def resume(self, subscription: Subscription, query: AuthorizedQuery, *, same: bool) -> None:
        """Continue a suspended subscription from where it was, with a new query.

        ``same`` is whether the new query allows the same as that of the subscription, apart from
        the keys of related rows.
        """
        subscription.is_suspended = False
        old = subscription.query
        is_current = current_scope(old) == subscription.scope
        if subscription.shown is None and is_current:
            subscription.shown = old.filter.with_held_keys()
        if old.fields != query.fields or old.check is not None:
            subscription.shown = subscription.sent = None
            _forget_what_was_shown(subscription)
        is_current = is_current and _keys_of(old) == _keys_of(query)
        self.discard(subscription)
        subscription.query = query
        self._add(subscription)
        if same and is_current:
            subscription.scope = current_scope(query)  # a time in it may be another one
        self._continue(subscription)

    def _add(self, subscription: Subscription) -> None:
        for key_set in _key_sets(subscription):
            add_to(self._subscriptions, key_set, subscription)
            if key_set.is_outdated:
                self._request(key_set)
        if _is_frozen(subscription) and self._topics[subscription.stream].tailer is None:
            # without a log, events that are buffered now would be those of the outdated keys
            subscription.connection.close(CloseCode.PERMISSIONS_CHANGED)

    def _freeze(self, subscription: Subscription) -> None:
        """Stop delivering to a subscription immediately, because a key set is outdated."""
        topic = self._topics[subscription.stream]
        if topic.tailer is None:  # without a log, events in the meantime would be lost
            subscription.connection.close(CloseCode.PERMISSIONS_CHANGED)
            return
        # with another scope, the client was not sent what these keys show
        if subscription.shown is None and not _has_new_scope(subscription):
            subscription.shown = subscription.query.filter.with_held_keys()
        catchup.suspend(subscription, topic)

    def _continue(self, subscription: Subscription) -> None:
        """Continue a subscription if nothing stops it any more."""
        if not subscription.is_attached or subscription.is_suspended or _is_frozen(subscription):
            return
        topic, connection = self._topics[subscription.stream], subscription.connection
        shown, subscription.shown = subscription.shown, None
        if topic.tailer is not None:
            has_changed = plan_rights_change(subscription, shown)
            if has_changed and connection.dialect != NATIVE:
                connection.close(CloseCode.PERMISSIONS_CHANGED)  # the SDKs know no other way
        catchup.resume(subscription, topic)

    # changes of related rows

    async def handle_changes(self, using: str, changes: Sequence[Change]) -> None:
        """Freeze the subscriptions whose rights may have changed.

        ``changes`` are events of the hidden stream of the database ``using``. When this method
        returns, no event that follows them is delivered by an old right.
        """
        if not self.key_sets:
            return
        try:
            search = self._run(using, self.key_sets.find_touched, changes)
            touched = await asyncio.wait_for(search, MAX_SEARCH)
        except Exception as error:
            logger.warning("Permissions that a change concerns could not be searched: %r", error)
            touched = self.key_sets.find_all(using)
        self._note_outdated(touched)

    def handle_lost(self, using: str) -> None:
        """Freeze all subscriptions with key sets, because changes of related rows were missed."""
        self._note_outdated(self.key_sets.find_all(using))

    def stop(self) -> None:
        """Stop reading key sets."""
        for task in self._tasks.values():
            task.cancel()

    def _note_outdated(self, key_sets: Iterable[RelatedKeySet]) -> None:
        outdated = list(key_sets)
        if outdated:
            for topic in self._topics.values():
                topic.shared_snapshots.expire()  # read by old rights
        for key_set in outdated:
            key_set.changes += 1
            for subscription in items(self._subscriptions.get(key_set)):
                self._freeze(subscription)
        for key_set in outdated:
            if key_set in self._subscriptions:
                self._request(key_set)

    def _request(self, key_set: RelatedKeySet) -> None:
        """Have an outdated set read."""
        using = key_set.query.using
        self._outdated.setdefault(using, {})[key_set] = None
        if using not in self._tasks:
            self._tasks[using] = asyncio.get_running_loop().create_task(self._read(using))

    async def _read(self, using: str) -> None:
        """Read outdated sets, and continue their subscriptions, until there are no more.

        If a query fails, those after it are read one by one until it is found, and it is read again
        after them: a query that always fails must not delay others.
        """
        set_owner(Owner(hidden_stream(using)), hidden_stream(using))
        size = BATCH_SIZE
        try:
            while outdated := self._outdated.get(using):
                batch = list(outdated)[:size]
                try:
                    await self._read_batch(outdated, batch)
                except Exception as error:
                    if len(batch) > 1:
                        size = 1
                        continue
                    text = "Keys of related rows cannot be read: %r"
                    log_repeated(logger, logging.WARNING, text, error, kind=using)
                    size = BATCH_SIZE
                    outdated[batch[0]] = outdated.pop(batch[0])
                    await asyncio.sleep(RETRY_INTERVAL)
        finally:
            del self._tasks[using]

    async def _read_batch(
        self, outdated: dict[RelatedKeySet, None], batch: list[RelatedKeySet]
    ) -> None:
        changes = [key_set.changes for key_set in batch]
        results = await run_in_threadpool(read_keys, batch)
        for key_set, keys, seen in zip(batch, results, changes, strict=True):
            store(key_set, keys, seen)
            if not key_set.is_outdated:
                outdated.pop(key_set, None)
        concerned = {
            subscription: None
            for key_set in batch
            for subscription in items(self._subscriptions.get(key_set))
        }
        for subscription in concerned:
            try:
                self._settle(subscription)
            except Exception:  # the others must continue
                logger.exception("A subscription could not be continued.")
                self._topics[subscription.stream].end_with_error(subscription)

    def _settle(self, subscription: Subscription) -> None:
        """Continue a subscription whose key sets were read, or end it."""
        if any(key_set.is_too_large for key_set in _key_sets(subscription)):
            self._end(subscription)
        else:
            self._continue(subscription)


def _key_sets(subscription: Subscription) -> list[RelatedKeySet]:
    """Return the key sets that decide what a subscription may see."""
    sets = subscription.query.key_sets()
    return [key_set for key_set in sets if isinstance(key_set, RelatedKeySet)]


def _keys_of(query: AuthorizedQuery) -> list[tuple[int, int]]:
    """Return what identifies the keys of a query's key sets, in their order."""
    return [(len(key_set), key_set.digest) for key_set in query.key_sets()]


def _forget_what_was_shown(subscription: Subscription) -> None:
    """Let a change of rights that is planned be sent without a difference."""
    plan = None if subscription.catchup is None else subscription.catchup.plan
    if plan is not None and plan.rights_change is not None:
        plan.rights_change.old = None


def _is_frozen(subscription: Subscription) -> bool:
    return any(key_set.is_outdated for key_set in _key_sets(subscription))


def _has_new_scope(subscription: Subscription) -> bool:
    """Return whether keys have changed since the client was sent the scope."""
    query = subscription.query
    return bool(_key_sets(subscription)) and current_scope(query) != subscription.scope

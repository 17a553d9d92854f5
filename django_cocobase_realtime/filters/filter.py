"""The class `Filter`, a parsed filter."""

from __future__ import annotations

import logging

from ..utils.repeated_log import omitted_text, repeated_log
from .key_set import KeySet
from .nodes import (
    ALWAYS,
    NEVER,
    Node,
    all_of,
    any_of,
    key_sets_in,
    negate,
    with_key_sets,
)
from .predicate import compile_node
from .row import Predicate, Row
from .unknown import UNKNOWN, resolve

logger = logging.getLogger(__name__)


class Filter:
    """A parsed filter: a tree of conditions that a row matches or not.

    Filters are immutable and hashable. They are equal if their `canonical` texts are equal. Key
    sets in a filter change, but it always contains the same ones.
    """

    __slots__ = ("_canonical", "_inverse", "_predicate", "_source", "root")

    def __init__(self, root: Node = ALWAYS) -> None:
        # root of the tree as it was parsed or combined, with conditions whose value is None
        self._source = root
        # root of the tree that is evaluated, without them
        self.root = resolve(root)
        self._canonical = self.root.text()
        # the function of `matches`, None until it is used
        self._predicate: Predicate | None = None
        # the negation, None until `decide` needs it
        self._inverse: Filter | None = None

    @property
    def matches(self) -> Predicate:
        """A function that returns whether a row matches. It raises no exception.

        It is compiled at the first access, because most filters in an index do not need it.
        """
        if self._predicate is None:
            self._predicate = _without_exceptions(compile_node(self.root))
        return self._predicate

    def decide(self, row: Row) -> bool | None:
        """Return whether a row matches; None if that is unknown.

        It is unknown because of a None in the filter, or if the evaluation raises an exception.
        """
        if self.matches(row):
            return True
        if self._inverse is None:
            self._inverse = ~self
        return False if self._inverse.matches(row) else None

    @classmethod
    def everything(cls) -> Filter:
        """Return a filter that matches every row."""
        return cls(ALWAYS)

    @classmethod
    def nothing(cls) -> Filter:
        """Return a filter that matches no row."""
        return cls(NEVER)

    @classmethod
    def unknown(cls) -> Filter:
        """Return a filter that matches no row, and whose negation matches none either."""
        return cls(UNKNOWN)

    def canonical(self) -> str:
        """Return the canonical text, which is the same for equal filters on all servers.

        Key sets are in it by their number in this process, and their keys are not.
        """
        return self._canonical

    def scope_text(self) -> str:
        """Return the canonical text with the present keys of key sets, as hashes.

        It is the same on all servers if the keys are the same.
        """
        return self.root.text(_by_keys)

    def key_sets(self) -> tuple[KeySet, ...]:
        """Return the key sets in the filter, each once."""
        return tuple(dict.fromkeys(key_sets_in(self.root)))

    def key_versions(self) -> tuple[int, ...]:
        """Return the present versions of `key_sets`, which differ after each change of keys."""
        return tuple(key_set.version for key_set in self.key_sets())

    def with_held_keys(self) -> Filter:
        """Return the filter with copies of the key sets, which keep the keys of this moment.

        Call it in the event loop, and use the result in a thread.
        """
        copies = {key_set: key_set.held() for key_set in key_sets_in(self._source)}
        return Filter(with_key_sets(self._source, copies.__getitem__)) if copies else self

    def __and__(self, other: Filter) -> Filter:
        """Return a filter for the rows that both filters match."""
        return Filter(all_of((self._source, other._source)))

    def __or__(self, other: Filter) -> Filter:
        """Return a filter for the rows that either filter matches."""
        return Filter(any_of((self._source, other._source)))

    def __invert__(self) -> Filter:
        """Return a filter for the rows that this one does not match.

        Rows about which a condition with None would decide are in neither filter.
        """
        return Filter(negate(self._source))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Filter) and self._canonical == other._canonical

    def __hash__(self) -> int:
        return hash(self._canonical)

    def __repr__(self) -> str:
        return f"<Filter {self._canonical}>"


def _by_keys(key_set: KeySet) -> str:
    return f"{len(key_set)}:{key_set.digest:x}"


def log_failure(error: Exception) -> None:
    """Log that a filter could not be evaluated, but not for each row."""
    omitted = repeated_log.admit((log_failure, type(error)))
    if omitted is not None:
        more = omitted_text(omitted)
        message = "A filter could not be evaluated; it does not match.%s"
        logger.error(message, more, exc_info=error)


def _without_exceptions(test: Predicate) -> Predicate:
    """Return a test that no row matches if evaluating it raises an exception."""

    def matches(row: Row) -> bool:
        try:
            return test(row)
        except Exception as error:
            log_failure(error)
            return False

    return matches

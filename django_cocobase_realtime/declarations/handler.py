"""Handlers: functions of the project that are called with each committed change of a collection.

They are declared with the decorator `on_change`, in a module named ``realtime``. The command
``realtime_handlers`` calls them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar

from django.core.exceptions import ImproperlyConfigured

F = TypeVar("F", bound=Callable[..., Any])

# names of events that a handler may be called with
EVENTS = frozenset({"created", "updated", "deleted"})
MAX_NAME_LENGTH = 200  # characters


@dataclass(frozen=True, slots=True)
class CommittedChange:
    """A committed change of a row, which a handler is called with."""

    # name of the collection
    collection: str
    event: Literal["created", "updated", "deleted"]
    # primary key of the row, as text
    document_id: str
    # values of the row by field name, as an instance has them: before the change, None for a
    # creation or if they are unknown; and after it, None for a deletion
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    # names of the fields whose values differ; None if that is unknown
    changed: tuple[str, ...] | None
    # position of the change in its collection; the same whenever the handler is called with it
    cursor: str
    # the same for all changes of one database transaction
    transaction: str
    # time of the change, with a time zone
    at: datetime


@dataclass(frozen=True, slots=True, eq=False)
class ChangeHandler:
    """A function that is called with each change of a collection, and how this is done."""

    # unique name, by which its position is stored
    name: str
    # name of the collection
    collection: str
    # called with a `CommittedChange`; may be asynchronous
    function: Callable[..., Any]
    # filter that the row matches after the change, or before a deletion; None for all rows
    filters: Mapping[str, Any] | None
    # events that it is called with
    ops: frozenset[str]
    # calls after which `on_failure` applies; None for no limit
    max_attempts: int | None
    # what happens after the last attempt
    on_failure: Literal["stop", "skip"]
    # called without arguments if changes were deleted before the handler was called with them
    on_lost: Callable[[], Any] | None
    # changes that are read at a time
    batch_size: int


class HandlerRegistry:
    """The handlers of the project, by name."""

    def __init__(self) -> None:
        self._handlers: dict[str, ChangeHandler] = {}

    def add(self, handler: ChangeHandler) -> None:
        """Add a handler. Raises ``ImproperlyConfigured`` if another one has its name."""
        if handler.name in self._handlers:
            raise ImproperlyConfigured(
                f"Handler {handler.name!r}: two functions are registered. Give one of them another "
                "name: on_change(..., name=...)."
            )
        self._handlers[handler.name] = handler

    def remove(self, name: str) -> None:
        """Remove a handler, if there is one of this name."""
        self._handlers.pop(name, None)

    def all(self) -> list[ChangeHandler]:
        """Return all handlers, in the order of their registration."""
        return list(self._handlers.values())


handler_registry = HandlerRegistry()


def on_change(
    collection: str,
    *,
    name: str | None = None,
    filters: Mapping[str, Any] | None = None,
    ops: Iterable[str] = ("created", "updated", "deleted"),
    max_attempts: int | None = None,
    on_failure: Literal["stop", "skip"] = "stop",
    on_lost: Callable[[], Any] | None = None,
    batch_size: int = 100,
) -> Callable[[F], F]:
    """Register a function that is called with each committed change of a collection.

    The command ``realtime_handlers`` calls it: after the commit, in order, and at least once. The
    function, which may be asynchronous, gets a `CommittedChange`. Raises ``ImproperlyConfigured``
    for arguments that are not valid.
    """
    if isinstance(ops, str) or not EVENTS.issuperset(chosen := frozenset(ops)) or not chosen:
        raise ImproperlyConfigured(f"on_change: 'ops' must be a list of {sorted(EVENTS)}.")
    if on_failure not in ("stop", "skip"):
        raise ImproperlyConfigured("on_change: 'on_failure' must be 'stop' or 'skip'.")
    if max_attempts is not None and max_attempts < 1:
        raise ImproperlyConfigured("on_change: 'max_attempts' must be at least 1, or None.")
    if batch_size < 1:
        raise ImproperlyConfigured("on_change: 'batch_size' must be at least 1.")

    def decorate(function: F) -> F:
        chosen_name = f"{function.__module__}.{function.__qualname__}" if name is None else name
        if not 0 < len(chosen_name) <= MAX_NAME_LENGTH:
            raise ImproperlyConfigured(
                f"on_change: a name must have 1 to {MAX_NAME_LENGTH} characters, not "
                f"{chosen_name!r}."
            )
        handler_registry.add(
            ChangeHandler(
                name=chosen_name,
                collection=collection,
                function=function,
                filters=filters,
                ops=chosen,
                max_attempts=max_attempts,
                on_failure=on_failure,
                on_lost=on_lost,
                batch_size=batch_size,
            )
        )
        return function

    return decorate

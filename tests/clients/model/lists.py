"""The actions of histories that concern lists and counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.clients.model.actions import GROUPS, Random, action, is_closed, subscribe
from tests.clients.model.program import ListState, query_of, request_of, signature_of

if TYPE_CHECKING:
    from tests.clients.model.history import History

ORDERS = ["n", "-n", "title", "n,-title", ["-title", "n"], ["group", "-n", "title"]]
LIMITS = [1, 2, 3, 5]


@action(7)
def live(history: History, numbers: Random) -> None:
    if is_closed(history):
        return
    options: dict[str, Any] = {"filters": {}}
    if numbers.random() < 0.5:
        options["filters"]["group"] = numbers.choice(GROUPS)
    if numbers.random() < 0.3:
        options["fields"] = ["title"]
    subscribe(history, numbers, "live", options | _window(history, numbers))


def _window(history: History, numbers: Random) -> dict[str, Any]:
    """Return options of a window, or none."""
    options: dict[str, Any] = {}
    if numbers.random() < 0.3:
        return options
    if numbers.random() < 0.8:
        options["order"] = numbers.choice(ORDERS)
    if numbers.random() < 0.7:
        options["limit"] = numbers.choice(LIMITS)
    rows = list(history.server.table.rows.values())
    if rows and numbers.random() < 0.2:
        query = query_of({**options, "filters": {}}, None, frozenset())
        options["after"] = query.cursor_after(numbers.choice(rows))
    return options


@action(4)
def count(history: History, numbers: Random) -> None:
    if is_closed(history):
        return
    options: dict[str, Any] = {"filters": {}} | _aggregate(numbers)
    if numbers.random() < 0.5:
        options["filters"]["group"] = numbers.choice(GROUPS)
    subscribe(history, numbers, "count", options)


def _aggregate(numbers: Random) -> dict[str, Any]:
    """Return what is counted and computed."""
    options: dict[str, Any] = {"is_count": True}
    if numbers.random() < 0.7:
        options["group_by"] = numbers.choice(["group", ["team"], ["group", "team"]])
    for name, fields in (("sum", "n"), ("avg", "n"), ("min", ["n", "title"]), ("max", ["title"])):
        if numbers.random() < 0.4:
            options[name] = fields
    return options


def _lists(history: History) -> list[ListState]:
    """Return the lists and counts that are not being updated."""
    lists = [each for each in history.program.open_lists() if not each.is_watch]
    return [each for each in lists if each.update is None]


@action(4)
def update(history: History, numbers: Random) -> None:
    lists = _lists(history)
    if not lists or is_closed(history):
        return
    item = numbers.choice(lists)
    history.count += 1
    filters = {"id": item.id, "mark": history.count}
    if numbers.random() < 0.7:
        filters["group"] = numbers.choice(GROUPS)
    options: dict[str, Any] = {"filters": filters}
    if numbers.random() < 0.6:
        if item.options.get("is_count"):
            options |= _aggregate(numbers)
            del options["is_count"]
        else:
            # None stands for the default
            options |= {"order": None, "limit": None, "after": None}
            options |= _window(history, numbers)
    _replace(history, item, "update", options, options=options)


@action(5)
def more(history: History, numbers: Random) -> None:
    lists = [each for each in _lists(history) if each.options.get("limit")]
    if not lists or is_closed(history):
        return
    item = numbers.choice(lists)
    n = numbers.choice([1, 2, 3])
    _replace(history, item, "more", {"limit": item.options["limit"] + n}, n=n)


def _replace(
    history: History, item: ListState, op: str, changes: dict[str, Any], **fields: Any
) -> None:
    """Let the program replace options of a list."""
    item.update = history.program.call(op, item.id, history.client.now)
    item.new_options = {**item.options, **changes}
    history.promises.allow(f"subscribe {signature_of(request_of(item.new_options))}")
    history.do(op, id=item.id, call=item.update.number, **fields)
    history.advance(0.0)

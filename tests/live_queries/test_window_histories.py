"""Random changes of a window: its rows and the lists of clients are those of a sorted table.

``WINDOW_HISTORIES`` is the number of histories for each number of spare rows, of 300 changes each:
60 for 54,000 changes in all. A failure names its seed.
"""

import os
import random
from typing import NamedTuple

import pytest

from django_cocobase_realtime.events import Change
from django_cocobase_realtime.live_queries.differences import differences
from django_cocobase_realtime.live_queries.window import Window, WindowRow

HISTORIES = int(os.environ.get("WINDOW_HISTORIES", "8"))
CHANGES = 300
KEYS = 70
LIMITS = (3, 10, 14)


class Values(NamedTuple):
    """The values of a row: a number to sort by in descending order, and whether it matches."""

    number: int | None
    matches: bool
    # changes without an effect on the order
    title: int


def place_of(key, values):
    """Return a place: greater numbers first, then nulls, and then smaller keys."""
    return (values.number is None, -(values.number or 0), key)


def make_row(key, values):
    change = Change("", "t", "updated", str(key), "", "", after=values._asdict())
    return WindowRow(place_of(key, values), str(key), change)


class Client:
    """A list that is spliced by differences alone."""

    def __init__(self, window, limit):
        self.limit = limit
        self._rows, self.more = (), False
        self.ids = []
        self.update(window)

    def update(self, window):
        result = window.result(self.limit)
        old, new = self._rows, result.rows
        difference = differences(old, new, lambda one, other: one.change == other.change)
        remove = {old[index].id for index in difference.remove}
        self.ids = [row for row in self.ids if row.id not in remove]
        for index in difference.insert:
            self.ids.insert(index, new[index])
        self._rows, self.more = new, result.more
        return len(difference.remove) + len(difference.insert)


class History:
    """A table with a window, which is changed at random."""

    def __init__(self, seed, spare_rows, *, paged):
        self.random = random.Random(seed)
        count = self.random.choice([0, 3, 12, 60])
        self.table = {key: self.values() for key in range(count)}
        self.after = None
        if paged:
            self.after = place_of(self.random.randrange(KEYS), self.values())
        # numbers of reads of several rows
        self.loads = self.fills = 0
        self.window = Window(max(LIMITS), self.after, spare_rows)
        rows = self.rows()
        self.window.load(rows[: self.window.size], is_cut=len(rows) > self.window.size)
        self.clients = [Client(self.window, limit) for limit in LIMITS]

    def values(self):
        choose = self.random
        return Values(choose.choice([None, 0, 1, 2]), choose.random() < 0.7, choose.randrange(3))

    def rows(self):
        """Return all rows that match, in order."""
        rows = [make_row(key, values) for key, values in self.table.items() if values.matches]
        in_range = (row for row in rows if self.after is None or row.place > self.after)
        return sorted(in_range, key=lambda row: row.place)

    def change(self):
        """Change a row, in most cases one of the window."""
        choose, shown = self.random, self.window.result(max(LIMITS)).rows
        if choose.random() < 0.6 or not shown:
            key = choose.randrange(KEYS)
        else:
            key = int(choose.choice(shown).id)
        if choose.random() < 0.25:
            self.table.pop(key, None)
            row = None
        else:
            values = self.table[key] = self.values()
            row = make_row(key, values) if values.matches else None
        self.window.apply(str(key), row)
        self.fill()

    def fill(self):
        """Read the rows behind the known ones, if the window is short."""
        if not self.window.is_short:
            return
        self.fills += 1
        behind = [row for row in self.rows() if row.place > self.window.bound.place]
        missing = self.window.missing
        self.window.fill(behind[:missing], is_cut=len(behind) > missing)
        assert not self.window.is_short

    def change_limit(self):
        """Let the window shrink or grow, as when a client comes or goes."""
        self.window.limit = self.random.choice([*LIMITS, 30])
        self.window.trim()
        self.fill()
        kept = [limit for limit in LIMITS if limit <= self.window.limit]
        self.clients = [Client(self.window, limit) for limit in kept]

    def check(self):
        expected = self.rows()
        for client in self.clients:
            client.update(self.window)
            assert client.ids == expected[: client.limit]
            assert client.more == (len(expected) > client.limit)


def play(spare_rows, *, paged=False, with_limits=False):
    """Play all histories, and return the number of reads for further rows."""
    fills = 0
    for seed in range(HISTORIES):
        history = History(f"{seed} {paged}", spare_rows, paged=paged)
        for number in range(CHANGES):
            try:
                history.change()
                if with_limits and history.random.random() < 0.05:
                    history.change_limit()
                history.check()
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, change {number}, {error}") from error
        fills += history.fills
    print(f"{spare_rows} spare rows: {fills} reads in {HISTORIES * CHANGES} changes")
    return fills


def test_lists_are_those_of_the_table_with_fewer_reads_the_more_rows_are_spare():
    one, few, many = (play(spare_rows) for spare_rows in (1, 5, 20))
    assert one > 3 * few
    assert few > 2 * many


@pytest.mark.parametrize("spare_rows", [1, 5])
def test_lists_of_pages_are_those_of_the_table(spare_rows):
    play(spare_rows, paged=True)


@pytest.mark.parametrize("spare_rows", [1, 5])
def test_lists_are_those_of_the_table_while_limits_change(spare_rows):
    play(spare_rows, with_limits=True)

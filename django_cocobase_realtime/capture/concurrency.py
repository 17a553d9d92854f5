"""Corrects what was recorded of rows in several tables that two transactions wrote at a time.

A statement locks the rows of the table that it writes. Locks on the other tables of a multi-table
row would make transactions wait, or end in a deadlock, that do not without this app. Two
transactions can therefore write different tables of the same row, and neither sees what the other
has not committed yet: the images of both have the old values of the other's table. After its
commit, each transaction compares its images with the rows. If they differ, it records the rows as
they are.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from functools import partial

from django.db import OperationalError, connections

from ..declarations.row_reader import Row
from ..log.append import Transaction
from ..utils.transactions import (
    call_on_commit,
    is_autocommit,
    own_statements,
    statement_transaction,
)
from .recorder import Op, record
from .tables import Rows, WatchedTable
from .targets import keys_in_parent, lock_rows, resync

# how long to wait for transactions that have locked the rows
LOCK_TIMEOUT = "1s"

# a row before and after a change, for `record`
Change = tuple[Row | None, Row | None, Op]


def check_on_commit(
    table: WatchedTable, using: str, written: Iterable[str], befores: Rows, afters: Rows
) -> None:
    """Compare recorded rows with the table after the commit, if parts of them were not locked.

    ``written`` are the database tables that the transaction has locked, ``befores`` and ``afters``
    the rows before and after its update.
    """
    unlocked = {model._meta.db_table for model in table.tables}.difference(written)
    if not afters or not unlocked or not connections[using].features.has_select_for_update:
        return
    last_rows = Transaction.current(using).last_rows
    call_on_commit(using, partial(_check, table, using, unlocked, befores, afters, last_rows))


def _check(
    table: WatchedTable,
    using: str,
    unlocked: set[str],
    befores: Rows,
    afters: Rows,
    last_rows: Mapping[tuple[object, Hashable], Row | None],
) -> None:
    if not is_autocommit(using):
        return  # a test calls the hooks of a transaction that stays open
    # a later statement of the same transaction has recorded the others
    recorded = {id: row for id, row in afters.items() if last_rows.get((table, id)) == row}
    differing = _differing(table, using, recorded)
    if not differing:
        return
    keys = [table.key_of(recorded[identity]) for identity in differing]
    try:
        with statement_transaction(using, write_lock=True):
            _lock(table, using, keys)
            rows = _differing(table, using, {id: recorded[id] for id in differing})
            changes: list[Change] = []
            for identity, row in rows.items():
                changes += _corrections(
                    table, unlocked, befores.get(identity), recorded[identity], row
                )
            record(table, using, changes)
    except OperationalError:  # a third transaction keeps the rows locked
        resync([table], using)


def _differing(table: WatchedTable, using: str, recorded: Rows) -> dict[Hashable, Row | None]:
    """Return the rows that are not as they were recorded; None for rows that are gone."""
    with own_statements(using):
        rows = table.read(using, [table.key_of(row) for row in recorded.values()])
    return {
        identity: rows.get(identity)
        for identity, row in recorded.items()
        if identity not in rows or not _have_same_images(table, row, rows[identity])
    }


def _have_same_images(table: WatchedTable, row: Row, other: Row) -> bool:
    return all(codec.image(row) == codec.image(other) for codec, _ in table.codecs)


def _lock(table: WatchedTable, using: str, keys: list[Hashable]) -> None:
    """Lock all parts of rows, so that the next change of a row is recorded after the correction."""
    connection = connections[using]
    if connection.vendor == "postgresql":
        with own_statements(using), connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = %s", [LOCK_TIMEOUT])
    for model in (table.model, *table.model._meta.all_parents):
        of_model = keys if model is table.model else keys_in_parent(table.model, model, using, keys)
        lock_rows(model, using, of_model, no_key=True)


def _corrections(
    table: WatchedTable, unlocked: set[str], before: Row | None, recorded: Row, row: Row | None
) -> list[Change]:
    """Return changes from both recorded versions of a row to the row as it is.

    A subscription can have got the row because of either version.
    """
    if row is None:
        return [(recorded, None, "deleted")]
    changes: list[Change] = []
    if before is not None:
        # the other transaction saw its own values, and those before this transaction
        of_other = {
            str(field.attname): row[str(field.attname)]
            for field in table.fields
            if field.model._meta.db_table in unlocked
        }
        changes.append(({**before, **of_other}, row, "updated"))
    return [*changes, (recorded, row, "updated")]

"""Queries that are refused, because what they return may change without a change that is seen."""

from __future__ import annotations

import re
from collections.abc import Iterable

from django.apps import apps
from django.db import connections, models
from django.db.models.expressions import BaseExpression
from django.db.models.sql.query import Query

from .errors import UnsupportedQuery

# functions whose result changes without a write, by name
_VOLATILE = {
    "Now", "Random", "RandomUUID", "TransactionNow", "UUID4", "UUID7",
    "RANDOM", "NOW", "CURRENT_TIMESTAMP", "CURRENT_DATE", "CURRENT_TIME", "LOCALTIMESTAMP",
    "CLOCK_TIMESTAMP", "STATEMENT_TIMESTAMP", "TRANSACTION_TIMESTAMP", "GEN_RANDOM_UUID", "RAND",
}  # fmt: skip
_TABLE_IN_SQL = re.compile(r'\b(?:FROM|JOIN) ("(?:[^"]|"")*"(?:\."(?:[^"]|"")*")*)')


def table_model(table: str) -> type[models.Model]:
    """Return the model of a table. Raises `UnsupportedQuery` if no writes to it are seen."""
    model = next(
        (
            model
            for model in apps.get_models(include_auto_created=True)
            if model._meta.db_table == table and model._meta.managed and not model._meta.proxy
        ),
        None,
    )
    if model is None:
        raise UnsupportedQuery(
            f"A key query reads {table!r}, which is not the table of a managed model: "
            "changes of it are not seen. Query the tables that it shows."
        )
    return model


def unknown_tables(sql: str, using: str, labels: Iterable[str]) -> set[str]:
    """Return the tables in a statement that are not those of the models with these labels."""
    quote = connections[using].ops.quote_name
    known = {quote(apps.get_model(label)._meta.db_table) for label in labels}
    return set(_TABLE_IN_SQL.findall(sql)) - known


def refuse_unsupported(query: Query) -> None:
    """Raise `UnsupportedQuery` if it is unknown what a query reads, or it locks rows."""
    if query.extra or query.extra_tables or query.extra_order_by:
        raise UnsupportedQuery(
            "A key query uses extra(), whose tables are unknown: "
            "replace it by annotate() and filter()."
        )
    if query.select_for_update:
        raise UnsupportedQuery(
            "A key query locks rows each time that it is read: remove select_for_update()."
        )


def refuse_volatile(node: BaseExpression) -> None:
    """Raise `UnsupportedQuery` if the value of an expression changes without a write."""
    name = getattr(node, "extra", {}).get("function") or getattr(node, "function", None)
    if type(node).__name__ in _VOLATILE or str(name).upper() in _VOLATILE:
        raise UnsupportedQuery(
            f"A key query calls {type(node).__name__}, whose result changes although no row is "
            "written: compare with a value of Python, such as timezone.now()."
        )

"""Digests of the methods of Django that capture replaces or relies on.

``python -m tests.support.django_methods`` prints those of the installed version.
"""

from __future__ import annotations

import inspect
import json
from hashlib import blake2s

import django
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model
from django.db.models.deletion import Collector
from django.db.models.sql.compiler import (
    SQLCompiler,
    SQLDeleteCompiler,
    SQLInsertCompiler,
    SQLUpdateCompiler,
)
from django.db.models.sql.subqueries import UpdateQuery

# those that `capture.writes` replaces; a method that a version does not have has no digest
WRAPPED = [
    (SQLInsertCompiler, "execute_sql"),
    (SQLUpdateCompiler, "execute_sql"),
    (SQLUpdateCompiler, "execute_returning_sql"),
    (SQLDeleteCompiler, "execute_sql"),
    (Model, "save_base"),
    (Model, "_save_table"),
    (Collector, "_has_signal_listeners"),
    (BaseDatabaseWrapper, "commit"),
    (BaseDatabaseWrapper, "rollback"),
]
# those whose calls, results or effects the replacements rely on
RELIED_ON = [
    (SQLCompiler, "get_converters"),
    (SQLInsertCompiler, "as_sql"),
    (SQLUpdateCompiler, "as_sql"),
    (SQLUpdateCompiler, "pre_sql_setup"),
    (SQLDeleteCompiler, "as_sql"),
    (UpdateQuery, "get_related_updates"),
    (Model, "_save_parents"),
    (Model, "_do_insert"),
    (Model, "_do_update"),
    (Collector, "can_fast_delete"),
    (Collector, "delete"),
    (BaseDatabaseWrapper, "on_commit"),
]


def version() -> str:
    """Return the minor version of Django, such as "5.2"."""
    return ".".join(map(str, django.VERSION[:2]))


def digests() -> dict[str, str]:
    """Return the digest of the source of each method, by its name."""
    found = {}
    for owner, name in (*WRAPPED, *RELIED_ON):
        method = getattr(owner, name, None)
        if method is not None:
            # of the original: getsource follows __wrapped__
            source = inspect.getsource(method)
            lines = "\n".join(line.strip() for line in source.splitlines())
            found[f"{owner.__name__}.{name}"] = blake2s(lines.encode(), digest_size=6).hexdigest()
    return found


if __name__ == "__main__":
    print(json.dumps({version(): digests()}, indent=4))

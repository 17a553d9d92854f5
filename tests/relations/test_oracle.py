"""Whenever random writes change the keys of a query, the changes touch the query.

It is the test of what is read off Django's private API, so it runs on each supported version:

    SEED=7 HISTORIES=10 python -m pytest tests/relations/test_oracle.py
"""

import os

import pytest

from django_cocobase_realtime.relations import (
    KeyQuery,
    KeyQueryIndex,
    is_touched,
    probes,
    read_many,
)
from tests.relations.history import USERS, History
from tests.relations.kinds import KINDS, PLAIN, queryset
from tests.relations_app.models import Ticket

SEED = int(os.environ.get("SEED", "1"))
HISTORIES = int(os.environ.get("HISTORIES", "1"))
ROUNDS = 60
LIMIT = 1000


class Results:
    """Key queries of all kinds for all users, with their keys."""

    def __init__(self):
        self.names = {}
        self.index = KeyQueryIndex()
        for name, (field, _) in KINDS.items():
            for user in USERS:
                query = KeyQuery.resolve(Ticket, field, queryset(name, user), "default")
                self.names.setdefault(query, f"{name}, user {user}")
                self.index.add(query)
        self.queries = list(self.names)
        self._keys = self._read()

    def take_changed(self):
        """Return the queries whose keys have changed since the last call."""
        before, self._keys = self._keys, self._read()
        return {query for query in self.queries if before[query] != self._keys[query]}

    def _read(self):
        return dict(zip(self.queries, map(set, read_many(self.queries, LIMIT)), strict=True))


def touched_alone(query, changes):
    """Return whether one of the changes touches a query, without an index and statements."""
    return any(
        is_touched(reads, change.before, change.after)
        for change in changes
        for reads in query.table_reads(change.label)
    )


@pytest.fixture(autouse=True)
def _always_probe(monkeypatch):
    monkeypatch.setattr(probes, "MAX_UNPROBED", 0)


@pytest.mark.django_db
@pytest.mark.parametrize("seed", range(SEED, SEED + HISTORIES))
def test_each_query_whose_keys_change_is_touched(seed):
    """Changes are noticed after later ones were committed, as they may be in a server."""
    history, results = History(seed), Results()
    plain = {query for query in results.queries if results.names[query].split(", ")[0] in PLAIN}
    in_vain = rightly = 0
    for _ in range(ROUNDS):
        batches = []
        for _ in range(history.random.choice([1, 1, 2, 4])):
            history.write()
            batches.append(history.take_changes())
        touched = set().union(*map(results.index.find_touched, batches))
        changed = results.take_changed()
        missed = changed - touched
        alone = {q for q in changed if not any(touched_alone(q, batch) for batch in batches)}
        for query in missed | alone:
            print(f"SEED={seed}: {results.names[query]} was missed by", *batches, query, sep="\n")
        assert not missed
        assert not alone
        in_vain += len((touched - changed) & plain)
        rightly += len(changed & plain)
    print(f"SEED={seed}: {in_vain} plain queries were touched in vain, {rightly} rightly")
    assert rightly > ROUNDS / 2
    assert in_vain < 3 * rightly

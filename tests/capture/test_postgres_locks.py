"""PostgreSQL's locks: what commits and does not wait unwatched does so watched."""

import pytest
from django.db import connection
from django.db.models import F, Value
from django.db.models.functions import Concat

from django_cocobase_realtime.declarations.registry import registry
from tests.capture_app.models import (
    Bug,
    Child,
    Parent,
    Reply,
    Task,
    Team,
    Ticket,
    UrgentBug,
)
from tests.support.interleaving import interleave
from tests.support.watching import (
    assert_log_gives_tables,
    clear_tables,
    logged,
    table_images,
    watching,
)

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one writer."),
]

WATCHED = (Bug, Child, Parent, Reply, Task, Team, Ticket, UrgentBug)


class Rows:
    """Two rows of each kind."""

    def __init__(self):
        clear_tables()
        self.a, self.b = (Ticket.objects.create(title=t) for t in "ab")
        self.team, self.other = (Team.objects.create(name=n) for n in ("t", "o"))
        self.bug, self.bug2 = (UrgentBug.objects.create(title=t) for t in "ab")
        self.parents = [Parent.objects.create(slug=s) for s in "ab"]
        Child.objects.bulk_create([Child(parent=p, text="x") for p in self.parents])


def team_of(pk):
    return Team.objects.filter(pk=pk)


def teams_of(*pks):
    return Team.objects.filter(pk__in=pks)


# (steps of the first transaction, steps of the second, order)
CASES = {
    "save, then insert a child of the other's row": lambda r: (
        [r.a.save, lambda: Reply(ticket=r.b).save()],
        [r.b.save, lambda: Reply(ticket=r.a).save()],
        "1212",
    ),
    "insert a child, then save the other's row": lambda r: (
        [lambda: Reply(ticket=r.a).save(), r.b.save],
        [lambda: Reply(ticket=r.b).save(), r.a.save],
        "1212",
    ),
    "children in bulk, then update in bulk": lambda r: (
        [
            lambda: Reply.objects.bulk_create([Reply(ticket=r.a)]),
            lambda: Ticket.objects.filter(title__in=["b"]).update(title="c"),
        ],
        [
            lambda: Reply.objects.bulk_create([Reply(ticket=r.b)]),
            lambda: Ticket.objects.filter(title__in=["a"]).update(title="d"),
        ],
        "1212",
    ),
    "save with an unchanged unique column while a child is inserted": lambda r: (
        [r.team.save, lambda: None],
        [lambda: Ticket.objects.create(title="x", team_id=r.team.pk)],
        "12",
    ),
    "update of a unique column while a child is inserted": lambda r: (
        [lambda: team_of(r.team.pk).update(name="new")],
        [lambda: Ticket.objects.create(title="x", team_id=r.team.pk)],
        "12",
    ),
    "child, then update of the unique column, then update by the first": lambda r: (
        [
            lambda: Ticket.objects.create(title="x", team_id=r.team.pk),
            lambda: team_of(r.team.pk).update(name="t"),
        ],
        [lambda: team_of(r.team.pk).update(name="new")],
        "121",
    ),
    "child, then update in bulk of the unique column, then update by the first": lambda r: (
        [
            lambda: Ticket.objects.create(title="x", team_id=r.team.pk),
            lambda: teams_of(r.team.pk, 0).update(name="t"),
        ],
        [lambda: teams_of(r.team.pk, 0).update(name="new")],
        "121",
    ),
    "child, then update in bulk of the unique column by an expression": lambda r: (
        [
            lambda: Ticket.objects.create(title="x", team_id=r.team.pk),
            lambda: teams_of(r.team.pk).update(name=F("name")),
        ],
        [lambda: teams_of(r.team.pk, 0).update(name=Concat("name", Value("!")))],
        "121",
    ),
    "update that sets a unique column to itself while a child is inserted": lambda r: (
        [lambda: team_of(r.team.pk).update(name=F("name"))],
        [lambda: Ticket.objects.create(title="x", team_id=r.team.pk)],
        "12",
    ),
    "bulk update of a unique column to itself while a child is inserted": lambda r: (
        [lambda: teams_of(r.team.pk, 0).update(name=F("name"))],
        [lambda: Ticket.objects.create(title="x", team_id=r.team.pk)],
        "12",
    ),
    "two updates of disjoint rows": lambda r: (
        [lambda: Ticket.objects.filter(title="a").update(title="c")],
        [lambda: Ticket.objects.filter(title="b").update(title="d")],
        "12",
    ),
    "updates by join of disjoint rows, then children": lambda r: (
        [
            lambda: Parent.objects.filter(slug="a", child__text="x").update(n=1),
            lambda: Child.objects.create(parent=r.parents[1], text="y"),
        ],
        [
            lambda: Parent.objects.filter(slug="b", child__text="x").update(n=1),
            lambda: Child.objects.create(parent=r.parents[0], text="y"),
        ],
        "1212",
    ),
    "column of a child table against column of its parent's": lambda r: (
        [lambda: Bug.objects.filter(pk=r.bug.pk).update(severity=3)],
        [lambda: Task.objects.filter(pk=r.bug.pk).update(title="c")],
        "12",
    ),
    "column of a parent table against column of its child's": lambda r: (
        [lambda: Task.objects.filter(pk=r.bug.pk).update(title="c")],
        [lambda: Bug.objects.filter(pk=r.bug.pk).update(severity=3)],
        "12",
    ),
    "child and parent tables, crosswise": lambda r: (
        [
            lambda: Bug.objects.filter(pk=r.bug.pk).update(severity=3),
            lambda: Task.objects.filter(pk=r.bug2.pk).update(title="c"),
        ],
        [
            lambda: Bug.objects.filter(pk=r.bug2.pk).update(severity=3),
            lambda: Task.objects.filter(pk=r.bug.pk).update(title="d"),
        ],
        "1212",
    ),
    "save of a child's columns against an update of its parent's": lambda r: (
        [lambda: r.bug.save(update_fields=["deadline"])],
        [lambda: Task.objects.filter(pk=r.bug.pk).update(title="c")],
        "12",
    ),
    "many-to-one managers of two teams": lambda r: (
        [lambda: r.team.ticket_set.add(r.a), lambda: r.team.ticket_set.add(r.b)],
        [lambda: r.other.ticket_set.create(title="n"), lambda: r.other.ticket_set.clear()],
        "1212",
    ),
    "delete against an insert of a child": lambda r: (
        [lambda: Reply(ticket=r.a).save()],
        [r.a.delete],
        "12",
    ),
    "deletes of disjoint rows with children": lambda r: (
        [lambda: Parent.objects.filter(slug="a").delete()],
        [lambda: Parent.objects.filter(slug="b").delete()],
        "12",
    ),
    "delete of a multi-table row against an update of another": lambda r: (
        [lambda: UrgentBug.objects.filter(pk=r.bug.pk).delete()],
        [lambda: UrgentBug.objects.filter(pk=r.bug2.pk).update(title="c", severity=2)],
        "12",
    ),
    "two inserts of the same unique value": lambda r: (
        [lambda: Team.objects.create(name="n")],
        [lambda: Team.objects.create(name="n")],
        "12",
    ),
    "two inserts that ignore or update conflicts": lambda r: (
        [
            lambda: Team.objects.bulk_create([Team(name="n")], ignore_conflicts=True),
            lambda: Parent.objects.create(slug="q"),
        ],
        [
            lambda: Parent.objects.bulk_create(
                [Parent(slug="a", n=5)],
                update_conflicts=True,
                unique_fields=["slug"],
                update_fields=["n"],
            ),
            lambda: Team.objects.create(name="m"),
        ],
        "1212",
    ),
    "insert that updates a conflicting row while its child is inserted": lambda r: (
        [
            lambda: Parent.objects.bulk_create(
                [Parent(slug="a", n=5)],
                update_conflicts=True,
                unique_fields=["slug"],
                update_fields=["n"],
            )
        ],
        [lambda: Child.objects.create(parent=r.parents[0], text="y")],
        "12",
    ),
    "update of one row by two": lambda r: (
        [lambda: Ticket.objects.filter(pk=r.a.pk).update(title="c")],
        [lambda: Ticket.objects.filter(pk=r.a.pk).update(title="d")],
        "12",
    ),
    "update of matching rows and insert of a matching row": lambda r: (
        [lambda: Ticket.objects.filter(title__in=["a", "n"]).update(title="c")],
        [lambda: Ticket.objects.create(title="n")],
        "12",
    ),
}


# Both transactions write a row of the same document, in different tables, and neither sees what
# the other has not committed. Locks would make them wait, so the last one records the row again.
WITHOUT_OLD_VALUES = {
    "column of a child table against column of its parent's",
    "column of a parent table against column of its child's",
    "child and parent tables, crosswise",
    "save of a child's columns against an update of its parent's",
}


def committed(errors):
    return [type(error).__name__ if error else None for error in errors]


def assert_last_images_are_rows():
    for collection in registry:
        last = {change.document_id: change.after for change in logged(collection.name)}
        images = table_images(collection)
        assert last == {id: image for id, image in images.items() if id in last}


@pytest.mark.parametrize("immediate", [False, True], ids=["deferred", "immediate"])
@pytest.mark.parametrize("case", CASES)
def test_what_commits_and_does_not_wait_unwatched_does_so_watched(case, immediate):
    results = []
    for watched in ((), WATCHED):
        with watching(*watched):
            rows = Rows()
            waits, errors = interleave(*CASES[case](rows), immediate=immediate)
            results.append((waits, committed(errors)))
            if watched and case in WITHOUT_OLD_VALUES:
                assert_last_images_are_rows()
            elif watched:
                assert_log_gives_tables()
    (unwatched_waits, unwatched_errors), (waits, errors) = results
    assert errors == unwatched_errors
    assert waits == unwatched_waits

"""Updates of rows of through tables update the rows that they referred to, and refer to now."""

import pytest
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from django_cocobase_realtime.capture import deletes, updates
from tests.app.models import Post, Tag
from tests.capture_app.models import (
    Group,
    Leadership,
    Membership,
    NamedMembership,
    Person,
    Task,
)
from tests.support.watching import (
    assert_log_gives_tables,
    forget_logged,
    logged,
    outcome,
    watching,
)

pytestmark = pytest.mark.django_db(transaction=True)


class Rows:
    """Two groups; the first one has two members."""

    def __init__(self):
        self.a, self.b = (Group.objects.create(name=name) for name in "ab")
        self.ada, self.bob = (Person.objects.create(name=name) for name in ("ada", "bob"))
        self.membership = Leadership.objects.create(group=self.a, person=self.ada)
        self.membership = Membership.objects.get()
        self.named = NamedMembership.objects.create(group=self.a, person=self.ada)
        forget_logged()


def updated(collection="group"):
    """Return name and changed fields of the updated rows of a collection, in order."""
    changes = logged(collection)
    assert {change.op for change in changes} <= {"updated"}
    return sorted((change.after["name"], change.changed) for change in changes)


def save(row, **values):
    for name, value in values.items():
        setattr(row, name, value)
    row.save()


UPDATES = {
    "queryset": lambda rows: Membership.objects.update(group=rows.b),
    "queryset by key": lambda rows: Membership.objects.filter(pk=rows.membership.pk).update(
        group=rows.b
    ),
    "save": lambda rows: save(rows.membership, group=rows.b),
    "bulk_update": lambda rows: Membership.objects.bulk_update(
        [Membership(pk=rows.membership.pk, group=rows.b)], ["group"]
    ),
    "by join": lambda rows: Membership.objects.filter(group__name="a").update(
        group=rows.b, role="x"
    ),
    "upsert": lambda rows: Membership.objects.bulk_create(
        [Membership(pk=rows.membership.pk, group=rows.b, person=rows.ada)],
        update_conflicts=True,
        unique_fields=["id"],
        update_fields=["group"],
    ),
    "child's queryset": lambda rows: Leadership.objects.update(group=rows.b, since=3),
    "child's queryset, parent's column": lambda rows: Leadership.objects.update(group=rows.b),
    "child's save": lambda rows: save(Leadership.objects.get(), group=rows.b),
}
MEMBERSHIPS, LEADERSHIPS = "capture_app.Membership", "capture_app.Leadership"
WATCHED = {
    "through model unwatched": {},
    "through model watched": {"membership": MEMBERSHIPS},
    "child of through model watched": {"leadership": LEADERSHIPS},
    "both watched": {"membership": MEMBERSHIPS, "leadership": LEADERSHIPS},
    "without old values": {"membership": {"model": MEMBERSHIPS, "track": False}},
    "without the reference": {"membership": {"model": MEMBERSHIPS, "fields": ["role"]}},
}


@pytest.mark.parametrize("watched", WATCHED)
@pytest.mark.parametrize("update", UPDATES)
def test_old_and_new_row_are_updated(update, watched, settings):
    collections = {"group": "capture_app.Group", **WATCHED[watched]}
    settings.COCOBASE_REALTIME = {"COLLECTIONS": collections}
    rows = Rows()
    UPDATES[update](rows)
    assert updated() == [("a", ("members",)), ("b", ("members",))]
    assert Membership.objects.get().group == rows.b


@pytest.fixture
def without_returning(monkeypatch):
    for module in (updates, deletes):
        monkeypatch.setattr(module, "can_return_rows", lambda connection: False)
    monkeypatch.setattr(updates, "_returns_old", lambda connection: False)


@pytest.mark.parametrize("watched", [(), (Membership,)], ids=["unwatched", "watched"])
@pytest.mark.parametrize("update", UPDATES)
def test_old_and_new_row_are_updated_without_returning(update, watched, without_returning):
    with watching(Group, *watched):
        rows = Rows()
        UPDATES[update](rows)
        assert updated() == [("a", ("members",)), ("b", ("members",))]


@pytest.mark.parametrize("watched", [(), (Membership,)], ids=["unwatched", "watched"])
def test_old_and_new_row_are_updated_before_postgresql_18(watched, monkeypatch):
    monkeypatch.setattr(updates, "_returns_old", lambda connection: False)
    for update in UPDATES.values():
        with watching(Group, *watched):
            update(Rows())
            assert updated() == [("a", ("members",)), ("b", ("members",))]
            Group.objects.all().delete()
            Person.objects.all().delete()
            forget_logged()


def test_row_whose_member_is_replaced_is_updated_once():
    with watching(Group):
        rows = Rows()
        save(rows.membership, person=rows.bob)
        assert updated() == [("a", ("members",))]


def test_reference_to_another_column_than_the_key():
    with watching(Group):
        rows = Rows()
        NamedMembership.objects.update(group=rows.b)
        assert updated() == [("a", ("named",)), ("b", ("named",))]
        forget_logged()
        save(rows.named, group=rows.b, person=rows.bob)
        assert updated() == [("b", ("named",))]


def test_many_to_many_field_of_both_kinds_of_through_model():
    with watching(Person, Post):
        ada, bob, eve = (Person.objects.create(name=name) for name in ("ada", "bob", "eve"))
        ada.follows.add(eve)
        forget_logged()
        Person.follows.through.objects.update(from_person=bob)
        assert updated("person") == [("ada", ("follows",)), ("bob", ("follows",))]
        tag = Tag.objects.create(name="t")
        first, second = (Post.objects.create(title=title) for title in "ab")
        first.tags.add(tag)
        forget_logged()
        Post.tags.through.objects.filter(tag=tag).update(post=second)
        assert [change.document_id for change in logged("post")] == [
            str(first.pk),
            str(second.pk),
        ]


def test_row_whose_key_changes_is_updated():
    with watching(Group, Person):
        rows = Rows()
        NamedMembership.objects.update(id=rows.named.pk + 1, group=rows.b)
        assert updated() == [("a", ("named",)), ("b", ("named",))]


def test_update_of_other_columns_records_nothing():
    for watched in ((), (Membership,)):
        with watching(Group, *watched):
            rows = Rows()
            Membership.objects.update(role="guest")
            save(rows.membership, role="owner")
            assert logged("group") == []
            assert len(logged()) == 2 * len(watched)
            Group.objects.all().delete()
            Person.objects.all().delete()


def test_update_in_a_transaction_that_is_rolled_back_records_nothing():
    with watching(Group):
        rows = Rows()
        with pytest.raises(KeyError), transaction.atomic():
            Membership.objects.update(group=rows.b)
            raise KeyError
        assert logged() == []


def test_refused_update_raises_as_unwatched():
    outcomes = []
    for watched in ((), (Group,)):
        with watching(*watched):
            rows = Rows()
            with transaction.atomic():
                outcomes.append(
                    outcome(lambda: Membership.objects.filter(role=object).update(group="x"))[:2]
                )
            assert Membership.objects.get().group == rows.a
            Group.objects.all().delete()
            Person.objects.all().delete()
            forget_logged()
    assert outcomes[0] == outcomes[1]


@pytest.fixture
def statements(monkeypatch):
    """The statements of the connection, those of the app included."""
    executed = []
    execute = CursorWrapper.execute

    def note(self, sql, params=None):
        executed.append(str(sql))
        return execute(self, sql, params)

    monkeypatch.setattr(CursorWrapper, "execute", note)
    return executed


def count(statements, call):
    with transaction.atomic():
        Membership.objects.filter(pk=0).delete()  # takes SQLite's lock
        statements.clear()
        call()
        return [sql for sql in statements if not sql.startswith(("SAVEPOINT", "RELEASE"))]


def test_no_statement_is_added_for_models_that_no_watched_field_uses(statements):
    with watching(Group, Task):
        rows = Rows()
        rename = lambda: Person.objects.filter(name="bob").update(name="x")  # noqa: E731
        assert len(count(statements, rename)) == 1
        assert len(count(statements, lambda: Membership.objects.update(role="x"))) == 1
        save_role = lambda: rows.membership.save(update_fields=["role"])  # noqa: E731
        assert len(count(statements, save_role)) == 1


def test_statements_of_an_update_that_refers_to_the_same_rows_as_before(statements):
    with watching(Group):
        rows = Rows()
        executed = count(statements, rows.membership.save)
    reads = [sql for sql in executed if sql.startswith("SELECT")]
    returns_old = connection.vendor == "postgresql" and connection.pg_version >= 180000
    assert len(reads) == (0 if returns_old else 1 if connection.vendor == "sqlite" else 2)
    assert logged() == []
    assert len(executed) <= 3


def test_log_gives_tables_after_updates():
    with watching(Group, Membership, Leadership):
        for update in UPDATES.values():
            rows = Rows.__new__(Rows)
            rows.a, rows.b = (Group.objects.create(name=name) for name in "ab")
            Person.objects.all().delete()
            rows.ada, rows.bob = (Person.objects.create(name=name) for name in ("ada", "bob"))
            Leadership.objects.create(group=rows.a, person=rows.ada)
            rows.membership = Membership.objects.get()
            update(rows)
            assert_log_gives_tables()

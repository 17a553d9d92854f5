"""Statements of every kind are logged by triggers, whichever program executes them."""

import pytest
from django.db import IntegrityError, connection, transaction

from django_cocobase_realtime import capture_disabled, notify_change
from django_cocobase_realtime.models import LogEvent
from tests.app.models import Item
from tests.capture_app.models import Page
from tests.support.log import read_all
from tests.support.triggers import execute, is_postgres, watching_by_triggers
from tests.support.watching import assert_log_gives_tables, forget_logged, logged

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


@pytest.fixture(autouse=True)
def _items():
    with watching_by_triggers(Item):
        yield


def changes():
    """Return operation, name and size before and after of each logged item."""
    values = [
        (c.op, *(image and (image["name"], image["size"]) for image in (c.before, c.after)))
        for c in logged("item")
    ]
    forget_logged()
    return values


def insert(*names):
    for size, name in enumerate(names):
        execute("INSERT INTO app_item (name, size) VALUES (%s, %s)", [name, size])


def test_raw_sql_is_logged():
    with transaction.atomic():
        ((key,),) = execute("INSERT INTO app_item (name, size) VALUES ('a', 1) RETURNING id")
        execute("UPDATE app_item SET size = 2")
        execute("DELETE FROM app_item")
    one, two = ({"id": str(key), "name": "a", "size": size} for size in (1, 2))
    created, updated, deleted = logged()
    assert (created.op, created.before, created.after) == ("created", None, one)
    assert (updated.op, updated.before, updated.after) == ("updated", one, two)
    assert (deleted.op, deleted.before, deleted.after) == ("deleted", two, None)
    assert [change.changed for change in logged()] == [None, ("size",), None]
    assert {change.document_id for change in logged()} == {str(key)}
    assert len({change.transaction for change in logged()}) == 1


@pytest.mark.skipif(not is_postgres(), reason="SQLite does not name its transactions.")
def test_transactions_have_their_own_ids():
    for _ in range(2):
        with transaction.atomic():
            insert("a", "b")
            execute("DELETE FROM app_item")
    assert [len(changes) for changes in by_transaction().values()] == [4, 4]


def by_transaction():
    groups = {}
    for change in logged():
        groups.setdefault(change.transaction, []).append(change)
    return groups


def test_orm_writes_are_logged_once():
    item = Item.objects.create(name="a")
    item.size = 5
    item.save()
    Item.objects.update(size=6)
    Item.objects.bulk_create([Item(name="b"), Item(name="a")], ignore_conflicts=True)
    item.delete()
    assert [change.op for change in logged()] == [
        "created",
        "updated",
        "updated",
        "created",
        "deleted",
    ]
    assert_log_gives_tables()


def test_each_row_of_a_statement_is_logged():
    Item.objects.bulk_create(Item(name=str(n), size=n) for n in range(300))
    assert [after for _, _, after in changes()] == [(str(n), n) for n in range(300)]
    Item.objects.filter(size__gte=200).update(size=0)
    assert sorted(changes()) == sorted(
        ("updated", (str(n), n), (str(n), 0)) for n in range(200, 300)
    )
    execute("DELETE FROM app_item WHERE size > 0")
    assert len(changes()) == 199


def test_statement_without_rows_logs_nothing():
    execute("UPDATE app_item SET size = 1")
    execute("DELETE FROM app_item")
    execute("INSERT INTO app_item (name, size) SELECT 'a', 1 WHERE 1 = 2")
    assert changes() == []


def test_update_without_a_change_is_logged_as_by_signals():
    insert("a")
    forget_logged()
    execute("UPDATE app_item SET size = size")
    (change,) = logged()
    assert (change.op, change.changed) == ("updated", ())


def test_upsert_is_logged_as_created_or_updated():
    insert("a", "b")
    forget_logged()
    execute(
        "INSERT INTO app_item (name, size) VALUES ('a', 7), ('c', 8) "
        "ON CONFLICT (name) DO UPDATE SET size = excluded.size"
    )
    assert sorted(changes()) == [("created", None, ("c", 8)), ("updated", ("a", 0), ("a", 7))]
    execute("INSERT INTO app_item (name, size) VALUES ('a', 9) ON CONFLICT DO NOTHING")
    assert changes() == []


def test_changed_primary_key_is_logged_as_deleted_and_created():
    insert("a")
    key = Item.objects.get().pk
    forget_logged()
    execute("UPDATE app_item SET id = id + 1")
    ops = {(change.op, change.document_id) for change in logged()}
    assert ops == {("deleted", str(key)), ("created", str(key + 1))}
    assert sorted(changes(), key=lambda change: change[0]) == [
        ("created", None, ("a", 0)),
        ("deleted", ("a", 0), None),
    ]


def test_rows_that_take_the_keys_of_others_are_logged_in_an_order_that_gives_the_table():
    """Each row gets the key of the next one. SQLite updates it row by row."""
    for key in (3, 2, 1):
        execute(f"INSERT INTO app_item (id, name, size) VALUES ({key}, 'n{key}', 0)")
    if is_postgres():
        with transaction.atomic():  # the constraint is checked for each row
            execute("UPDATE app_item SET id = id + 10")
            execute("UPDATE app_item SET id = id - 9")
    else:
        execute("UPDATE app_item SET id = id + 10")
        execute("UPDATE app_item SET id = id - 9")
    last = {}
    for change in logged():
        last[change.document_id] = change.after
    rows = {str(item.pk): item.name for item in Item.objects.all()}
    assert {key: image["name"] for key, image in last.items() if image} == rows


def test_rolled_back_changes_are_not_logged():
    with pytest.raises(KeyError), transaction.atomic():
        insert("never")
        raise KeyError
    with transaction.atomic():
        insert("a")
        with pytest.raises(KeyError), transaction.atomic():
            insert("never")
            raise KeyError
        with pytest.raises(IntegrityError), transaction.atomic():
            insert("a")
    assert changes() == [("created", None, ("a", 0))]


def test_refused_statement_raises_as_without_triggers():
    insert("a", "b")
    forget_logged()
    with pytest.raises(IntegrityError, match="app_item"):
        execute("UPDATE app_item SET name = 'same'")
    assert changes() == []


def test_keys_and_counts_that_statements_return_are_those_of_the_table():
    """The keys of the log's rows do not get in the way of ``lastrowid`` and the like."""
    LogEvent.objects.bulk_create(
        LogEvent(collection="x", transaction_id="", op="created", document_id="1", after="{}")
        for _ in range(50)
    )
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO app_item (name, size) VALUES ('a', 1)")
        if not is_postgres():
            assert cursor.lastrowid == Item.objects.get().pk
            cursor.execute("SELECT last_insert_rowid(), changes()")
            assert cursor.fetchone() == (Item.objects.get().pk, 1)
        cursor.execute("INSERT INTO app_item (name, size) VALUES ('b', 1)")
        cursor.execute("UPDATE app_item SET size = 2")
        assert cursor.rowcount == 2
        cursor.execute("DELETE FROM app_item WHERE name = 'a'")
        assert cursor.rowcount == 1
    assert Item.objects.update(size=3) == 1


def test_capture_disabled_does_not_stop_triggers():
    with capture_disabled():
        Item.objects.create(name="a")
        Item.objects.update(size=1)
    assert [op for op, _, _ in changes()] == ["created", "updated"]


def test_notified_change_is_logged_besides():
    insert("a")
    forget_logged()
    notify_change("item", "updated", Item.objects.get())
    assert [change.op for change in logged()] == ["updated"]


def test_events_are_numbered_and_read_in_the_order_of_the_writes():
    insert("a", "b")
    execute("UPDATE app_item SET size = size + 10")
    execute("DELETE FROM app_item WHERE name = 'a'")
    events = read_all("item")
    assert [event.op for event in events] == ["created"] * 2 + ["updated"] * 2 + ["deleted"]
    assert [event.seq for event in events] == [1, 2, 3, 4, 5]
    assert events[2].changed == ("size",)


def test_without_old_values_the_row_before_an_update_is_not_logged():
    with watching_by_triggers(Page, track=False):
        page = Page.objects.create(a=1)
        execute("UPDATE capture_app_page SET a = 2")
        execute("DELETE FROM capture_app_page")
        created, updated, deleted = logged("page")
        assert (created.before, created.after["a"]) == (None, 1)
        assert (updated.op, updated.before, updated.after["a"]) == ("updated", None, 2)
        assert (updated.changed, updated.document_id) == (None, str(page.pk))
        assert (deleted.before["a"], deleted.after) == (2, None)


def test_row_that_is_written_twice_in_a_transaction_is_logged_twice():
    with transaction.atomic():
        insert("a")
        for size in (5, 6):
            Item.objects.update(size=size)
    assert changes() == [
        ("created", None, ("a", 0)),
        ("updated", ("a", 0), ("a", 5)),
        ("updated", ("a", 5), ("a", 6)),
    ]


def test_row_that_is_referred_to_is_logged_when_the_database_changes_it():
    """A foreign key's ``ON DELETE`` and other triggers write rows, too."""
    if is_postgres():
        execute(
            "CREATE TABLE child (id int, item bigint REFERENCES app_item ON DELETE CASCADE);"
            "CREATE FUNCTION grow() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN UPDATE app_item SET size = size + 1; RETURN NULL; END';"
            "CREATE TRIGGER grow AFTER INSERT ON child EXECUTE FUNCTION grow()"
        )
    else:
        execute("CREATE TABLE child (id integer, item integer)")
        execute(
            "CREATE TRIGGER grow AFTER INSERT ON child BEGIN "
            "UPDATE app_item SET size = size + 1; END"
        )
    try:
        insert("a")
        execute("INSERT INTO child (id) VALUES (1)")
        assert changes() == [("created", None, ("a", 0)), ("updated", ("a", 0), ("a", 1))]
    finally:
        execute("DROP TABLE child")
        if is_postgres():
            execute("DROP FUNCTION grow")


# of one database


@pytest.mark.skipif(is_postgres(), reason="of SQLite")
def test_replace_logs_the_new_row_but_not_the_row_that_it_removes():
    """It is documented: SQLite calls no trigger for rows that REPLACE removes."""
    insert("a", "b")
    key = Item.objects.get(name="b").pk
    forget_logged()
    execute(f"INSERT OR REPLACE INTO app_item (id, name, size) VALUES ({key}, 'a', 7)")
    assert Item.objects.count() == 1
    assert changes() == [("created", None, ("a", 7))]


@pytest.mark.skipif(is_postgres(), reason="of SQLite")
def test_replace_logs_removed_rows_with_recursive_triggers():
    insert("a")
    forget_logged()
    execute("PRAGMA recursive_triggers = ON")
    try:
        execute("INSERT OR REPLACE INTO app_item (name, size) VALUES ('a', 7)")
    finally:
        execute("PRAGMA recursive_triggers = OFF")
    assert [op for op, _, _ in changes()] == ["deleted", "created"]


@pytest.mark.skipif(not is_postgres(), reason="of PostgreSQL")
def test_truncate_is_logged_as_deletions():
    insert("a", "b", "c")
    forget_logged()
    execute("TRUNCATE app_item")
    assert sorted(changes()) == [("deleted", (name, size), None) for size, name in enumerate("abc")]


@pytest.mark.skipif(not is_postgres(), reason="of PostgreSQL")
def test_merge_and_data_modifying_queries_are_logged():
    insert("a", "b")
    forget_logged()
    execute(
        "MERGE INTO app_item i USING (VALUES ('a', 5), ('c', 6)) AS v(name, size) "
        "ON i.name = v.name WHEN MATCHED THEN UPDATE SET size = v.size "
        "WHEN NOT MATCHED THEN INSERT (name, size) VALUES (v.name, v.size)"
    )
    assert sorted(changes()) == [("created", None, ("c", 6)), ("updated", ("a", 0), ("a", 5))]
    execute(
        "WITH gone AS (DELETE FROM app_item WHERE name = 'b' RETURNING *) "
        "INSERT INTO app_item (name, size) SELECT 'd', size FROM gone"
    )
    assert sorted(changes()) == [("created", None, ("d", 1)), ("deleted", ("b", 1), None)]

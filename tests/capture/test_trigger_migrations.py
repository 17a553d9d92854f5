"""Migrations of several tables that have triggers, and of the log's own tables."""

import pytest
from django.db import DatabaseError, connection, migrations, models

from django_cocobase_realtime.capture.triggers.catalog import installed
from tests.support import migrating
from tests.support.migrating import (
    INSERT,
    OPS,
    WRITES,
    Between,
    alter,
    are_installed,
    create,
    epochs,
    events,
    execute,
    field,
    writes,
)

pytestmark = pytest.mark.django_db(transaction=True)
POSTGRES = connection.vendor == "postgresql"


def migrated(project, *operations, between=(), **watched):
    """Apply operations, with writes after each of them; return whether subscribers must resync."""
    first, written = epochs(), Between(between)
    for operation in operations:
        project.add(operation, written.operation)
    project.watch(**watched)
    project.migrate()
    assert are_installed()
    return epochs() != first


def written(statements):
    """Execute statements, and return what the triggers have logged of them."""
    start = len(events())
    execute(statements)
    return events()[start:]


def test_created_and_deleted_models(project):
    migrated(project, create(), create("Other"), things="Thing", others="Other")
    assert written(WRITES) == [("things", op) for op in OPS]
    migrated(project, migrations.DeleteModel("Other"), between=WRITES, things="Thing")
    assert len(installed("default")) == 1
    assert written(WRITES) == [("things", op) for op in OPS]
    migrated(project, migrations.DeleteModel("Thing"))
    assert installed("default") == {}


def test_model_that_is_created_again_with_another_table(project):
    migrated(project, create(), things="Thing")
    options = {"db_table": "migrated_app_again"}
    operations = [migrations.DeleteModel("Thing"), create("Thing", **options)]
    assert migrated(project, *operations, things="Thing")
    assert written(writes("migrated_app_again")) == [("things", op) for op in OPS]


def test_collection_of_another_table(project):
    """The name stays, and the old table's triggers must not log to it any more."""
    migrated(project, create(), create("Other"), things="Thing")
    assert migrated(project, things="Other")
    assert written(WRITES) == []
    assert written(writes("migrated_app_other")) == [("things", op) for op in OPS]


PEOPLE = [create("Thing"), create("Person")]
LINK = [
    "INSERT INTO migrated_app_thing (id, name, number) VALUES (70, 'n', 1)",
    "INSERT INTO migrated_app_person (id, name, number) VALUES (80, 'n', 1)",
]
UNLINK = [
    "DELETE FROM migrated_app_thing WHERE id = 70",
    "DELETE FROM migrated_app_person WHERE id = 80",
]


def linking(table):
    return [
        f"INSERT INTO {table} (thing_id, person_id) VALUES (70, 80)",
        f"DELETE FROM {table} WHERE thing_id = 70",
    ]


def test_many_to_many_field_is_added_renamed_and_removed(project):
    migrated(project, *PEOPLE, things="Thing")
    execute(LINK)
    people = field("thing", "people", models.ManyToManyField(f"{migrating.APP}.person"))
    assert migrated(project, people, things="Thing")
    assert written(linking("migrated_app_thing_people")) == [("things", "updated")] * 2
    rename = migrations.RenameField("thing", "people", "members")
    assert migrated(project, rename, between=linking("migrated_app_thing_members"), things="Thing")
    assert written(linking("migrated_app_thing_members")) == [("things", "updated")] * 2
    # the other table's triggers log as before
    migrated(project, migrations.RemoveField("thing", "members"), between=WRITES, things="Thing")
    assert len(installed("default")) == 1
    assert written(UNLINK) == [("things", "deleted")]


def test_through_model_is_replaced(project):
    models_ = [f"{migrating.APP}.{name}" for name in ("thing", "person")]
    references = {
        name: models.ForeignKey(label, models.CASCADE)
        for name, label in zip(("thing", "person"), models_, strict=True)
    }
    people = field("thing", "people", models.ManyToManyField(models_[1]))
    migrated(project, *PEOPLE, people, things="Thing")
    execute(LINK)
    number = models.IntegerField(null=True)
    through = create("Link", *references.items(), ("name", number), ("number", number))
    other = models.ManyToManyField(models_[1], through=f"{migrating.APP}.Link")
    operations = [
        migrations.RemoveField("thing", "people"),
        through,
        field("thing", "people", other),
    ]
    assert migrated(project, *operations, between=WRITES, things="Thing")
    assert written(linking("migrated_app_link")) == [("things", "updated")] * 2
    rank = field("link", "rank", models.IntegerField(null=True))
    assert migrated(project, rank, between=linking("migrated_app_link"), things="Thing")
    assert written(linking("migrated_app_link")) == [("things", "updated")] * 2


def child_writes(parent="migrated_app_thing", column="name"):
    return [
        f"INSERT INTO {parent} (id, {column}, number) VALUES (90, 'p', 1)",
        "INSERT INTO migrated_app_book (thing_ptr_id, pages) VALUES (90, 5)",
        f"UPDATE {parent} SET {column} = 'q' WHERE id = 90",
        "UPDATE migrated_app_book SET pages = 6 WHERE thing_ptr_id = 90",
        "DELETE FROM migrated_app_book WHERE thing_ptr_id = 90",
        f"DELETE FROM {parent} WHERE id = 90",
    ]


def test_parents_of_multi_table_models(project):
    link = models.OneToOneField(
        f"{migrating.APP}.thing", models.CASCADE, parent_link=True, primary_key=True
    )
    book = migrations.CreateModel(
        "Book",
        [("thing_ptr", link), ("pages", models.IntegerField())],
        bases=(f"{migrating.APP}.thing",),
    )
    migrated(project, create(), book, books="Book")
    logged = [("books", op) for op in ("created", "updated", "updated", "deleted")]
    assert written(child_writes()) == logged
    rename = migrations.RenameField("thing", "name", "title")
    for operation in (
        field("thing", "x", models.TextField(null=True)),
        alter("thing", "number", models.BigIntegerField()),
        migrations.RemoveField("thing", "x"),
        migrations.AddField("book", "x", models.TextField(null=True)),
    ):
        assert migrated(project, operation, between=child_writes(), books="Book")
        assert written(child_writes()) == logged
    renamed = child_writes(column="title")
    assert migrated(project, rename, between=renamed, books="Book")
    assert written(renamed) == logged
    table = migrations.AlterModelTable("thing", "migrated_app_parent")
    renamed = child_writes("migrated_app_parent", "title")
    assert migrated(project, table, between=renamed, books="Book")
    assert written(renamed) == logged


def test_data_migrations(project):
    """Their writes by the ORM and by SQL are logged once, or subscribers resync."""
    migrated(project, create(), things="Thing")

    def fill(apps, schema_editor):
        thing = apps.get_model(migrating.APP, "Thing")
        row = thing.objects.create(name="c", number=2)
        thing.objects.filter(pk=row.pk).update(number=3)
        row.delete()

    start = len(events())
    operations = [
        migrations.RunPython(fill),
        field("thing", "x", models.TextField(null=True)),
        migrations.RunPython(fill),
        migrations.RunSQL(WRITES),
        migrations.RemoveField("thing", "x"),
        migrations.RunSQL(WRITES),
    ]
    must_resync = migrated(project, *operations, things="Thing")
    logged = events()[start:]
    assert must_resync is not POSTGRES
    if POSTGRES:
        assert logged == [("things", op) for op in OPS] * 4
    assert written(WRITES) == [("things", op) for op in OPS]


def test_own_migrations_are_reversed_and_applied(project):
    """The log's table disappears and is created again, which must stop no writer."""
    migrated(project, create(), things="Thing")
    project.migrate("cocobase_realtime", "zero")
    execute(WRITES)
    assert installed("default") == {}
    project.migrate("cocobase_realtime", "0003")
    execute(WRITES)
    project.migrate()
    assert are_installed()
    assert written(WRITES) == [("things", op) for op in OPS]


def test_failed_migration_stops_no_writer(project):
    migrated(project, create(), things="Thing")
    epochs()
    project.add(migrations.RunSQL("SELECT * FROM no_such_table"))
    with pytest.raises(DatabaseError):
        project.migrate()
    execute(WRITES)
    project.watch()
    project.remove_last()
    before = epochs()
    project.watch(things="Thing")
    project.migrate()
    assert are_installed()
    assert POSTGRES or epochs() != before


if POSTGRES:

    def test_truncate_of_renamed_table(project):
        """The function finds the table's present name, before the triggers are replaced."""
        migrated(project, create(), things="Thing")
        execute([INSERT.format(table="migrated_app_thing")])
        truncate = ["TRUNCATE migrated_app_other"]
        table = migrations.AlterModelTable("thing", "migrated_app_other")
        start = len(events())
        assert not migrated(project, table, between=truncate, things="Thing")
        assert events()[start:] == [("things", "deleted")]

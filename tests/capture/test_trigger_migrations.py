"""Migrations of tables that have triggers: each operation of Django's schema editor.

Rows are written by raw SQL before and after each operation, and between the migrations. No write
and no migration may fail, and each change is in the log, or subscribers fetch everything again.
"""

import pytest
from django.db import connection, migrations, models
from django.db.models.functions import Lower, Now

from tests.support import migrating
from tests.support.migrating import are_installed, epochs, events, execute, second_connection

pytestmark = pytest.mark.django_db(transaction=True)
POSTGRES = connection.vendor == "postgresql"


@pytest.fixture
def project(tmp_path, settings):
    with migrating.project(tmp_path, settings) as project:
        yield project


def create(name="Thing", *fields, **options):
    """Return the operation that creates a model with a name and a number."""
    defaults = {"name": models.CharField(max_length=50), "number": models.IntegerField(default=1)}
    columns = {"id": models.BigAutoField(primary_key=True), **defaults, **dict(fields)}
    return migrations.CreateModel(name, list(columns.items()), options)


def field(model, name, field):
    return migrations.AddField(model, name, field)


def alter(model, name, field):
    return migrations.AlterField(model, name, field)


INSERT = "INSERT INTO {table} (name, number) VALUES ('a', 1)"
UPDATE = "UPDATE {table} SET name = 'b' WHERE name = 'a'"
DELETE = "DELETE FROM {table} WHERE name = 'b'"


def writes(table="migrated_app_thing", insert=INSERT, update=UPDATE, delete=DELETE):
    return [statement.format(table=table) for statement in (insert, update, delete)]


def inserting(columns, values):
    """Return the writes to a table with other columns."""
    return writes(insert=f"INSERT INTO {{table}} ({columns}) VALUES ({values})")


WRITES = writes()
BASE = [create()]
OPS = ["created", "updated", "deleted"]
CASES = {
    "add nullable": dict(after=[field("thing", "x", models.TextField(null=True))]),
    "add with default": dict(
        after=[field("thing", "x", models.TextField(default="d"))],
        # Django drops the default in the database
        then=inserting("name, number, x", "'a', 1, 'x'"),
    ),
    "add with database default": dict(
        after=[field("thing", "x", models.DateTimeField(db_default=Now()))]
    ),
    "add secret-looking": dict(
        after=[field("thing", "password", models.TextField(null=True))],
    ),
    "add unique": dict(after=[field("thing", "x", models.IntegerField(null=True, unique=True))]),
    "add foreign key": dict(
        before=[create("Owner"), create()],
        after=[
            field(
                "thing",
                "owner",
                models.ForeignKey(f"{migrating.APP}.owner", models.CASCADE, null=True),
            )
        ],
    ),
    "add generated": dict(
        after=[
            field(
                "thing",
                "x",
                models.GeneratedField(
                    expression=Lower("name"),
                    output_field=models.CharField(max_length=50),
                    db_persist=POSTGRES,
                ),
            )
        ],
    ),
    "remove": dict(
        after=[migrations.RemoveField("thing", "number")],
        then=writes(insert="INSERT INTO {table} (name) VALUES ('a')"),
    ),
    "remove secret-looking": dict(
        before=[create("Thing", ("password", models.TextField(null=True)))],
        after=[migrations.RemoveField("thing", "password")],
    ),
    "remove foreign key": dict(
        before=[
            create("Owner"),
            create(
                "Thing",
                ("owner", models.ForeignKey(f"{migrating.APP}.owner", models.CASCADE, null=True)),
            ),
        ],
        after=[migrations.RemoveField("thing", "owner"), migrations.DeleteModel("Owner")],
    ),
    "rename": dict(
        after=[migrations.RenameField("thing", "number", "size")],
        then=inserting("name, size", "'a', 1"),
    ),
    "rename secret-looking": dict(
        before=[create("Thing", ("password", models.TextField(null=True)))],
        after=[migrations.RenameField("thing", "password", "note")],
    ),
    "rename primary key": dict(after=[migrations.RenameField("thing", "id", "code")]),
    "alter type": dict(after=[alter("thing", "number", models.TextField())]),
    "alter null": dict(after=[alter("thing", "number", models.IntegerField(null=True))]),
    "alter unique": dict(
        after=[alter("thing", "name", models.CharField(max_length=50, unique=True))]
    ),
    "alter length": dict(after=[alter("thing", "name", models.CharField(max_length=99))]),
    "alter column": dict(
        after=[alter("thing", "number", models.IntegerField(db_column="size"))],
        then=inserting("name, size", "'a', 1"),
    ),
    "alter index": dict(after=[alter("thing", "number", models.IntegerField(db_index=True))]),
    "alter primary key": dict(
        before=[create("Thing", ("id", models.AutoField(primary_key=True)))],
        after=[alter("thing", "id", models.BigAutoField(primary_key=True))],
    ),
    "rename model": dict(
        after=[migrations.RenameModel("Thing", "Article")],
        model="Article",
        then=writes("migrated_app_article"),
    ),
    "alter table": dict(
        after=[migrations.AlterModelTable("thing", "migrated_app_other")],
        then=writes("migrated_app_other"),
    ),
    "indexes": dict(
        after=[
            migrations.AddIndex("thing", models.Index(fields=["number"], name="thing_number")),
            migrations.RenameIndex("thing", new_name="thing_size", old_name="thing_number"),
            migrations.RemoveIndex("thing", "thing_size"),
        ],
    ),
    "constraints": dict(
        after=[
            migrations.AddConstraint(
                "thing",
                models.CheckConstraint(
                    **{
                        "check" if __import__("django").VERSION < (5, 1) else "condition": models.Q(
                            number__gt=0
                        )
                    },
                    name="positive",
                ),
            ),
            migrations.AddConstraint(
                "thing", models.UniqueConstraint(fields=["name"], name="one_name")
            ),
            migrations.RemoveConstraint("thing", "positive"),
        ],
    ),
    "unique together": dict(
        after=[
            migrations.AlterUniqueTogether("thing", {("name", "number")}),
            migrations.AlterUniqueTogether("thing", set()),
        ],
    ),
    "order with respect to": dict(
        before=[
            create("Owner"),
            create(
                "Thing",
                ("owner", models.ForeignKey(f"{migrating.APP}.owner", models.CASCADE, null=True)),
            ),
        ],
        after=[migrations.AlterOrderWithRespectTo("thing", "owner")],
        then=inserting("name, number, _order", "'a', 1, 0"),
    ),
    "comment": dict(after=[migrations.AlterModelTableComment("thing", "All of them.")]),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_operation(project, case):
    project.add(*case.get("before", BASE))
    project.watch(things="Thing")
    project.migrate()
    assert are_installed()
    execute(WRITES)
    assert [op for _, op in events()] == OPS
    first = epochs()
    between = Between(case.get("then", WRITES))
    for operation in case["after"]:
        project.add(operation, between.operation)
    project.watch(things=case.get("model", "Thing"))
    project.migrate()
    assert between.calls == len(case["after"])
    assert are_installed()
    logged = events()[len(OPS) :]
    if epochs() == first:
        assert [op for _, op in logged] == OPS * between.count
    start = len(events())
    execute(case.get("then", WRITES))
    assert [op for _, op in events()[start:]] == OPS


class Between:
    """Writes between operations: by the process that migrates, and by another one."""

    def __init__(self, statements):
        self.statements = statements
        self.calls = 0
        self.count = 0

    @property
    def operation(self):
        return migrations.RunPython(self._write)

    def _write(self, apps, schema_editor):
        self.calls += 1
        for write in self._writers():
            write()
            self.count += 1

    def _writers(self):
        def elsewhere():
            with second_connection() as cursor:
                execute(self.statements, cursor)

        # the migration's own transaction must not lock what the other one writes
        return [*([elsewhere] if POSTGRES else []), lambda: execute(self.statements)]

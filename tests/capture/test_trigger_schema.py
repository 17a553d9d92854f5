"""Migrations of a table that has triggers: each operation of Django's schema editor.

Rows are written by raw SQL before and after each operation, and between the migrations. No write
and no migration may fail, and each change is in the log, or subscribers fetch everything again.
"""

import django
import pytest
from django.db import connection, migrations, models
from django.db.models.functions import Lower, Now

from tests.support import migrating
from tests.support.migrating import (
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


def inserting(columns, values):
    """Return the writes to a table with other columns."""
    return writes(insert=f"INSERT INTO {{table}} ({columns}) VALUES ({values})")


BASE = [create()]
CASES = {
    "add nullable": {"after": [field("thing", "x", models.TextField(null=True))]},
    "add with default": {
        "after": [field("thing", "x", models.TextField(default="d"))],
        # Django drops the default in the database
        "then": inserting("name, number, x", "'a', 1, 'x'"),
    },
    "add with database default": {
        "after": [field("thing", "x", models.DateTimeField(db_default=Now()))]
    },
    "add secret-looking": {
        "after": [field("thing", "password", models.TextField(null=True))],
    },
    "add unique": {"after": [field("thing", "x", models.IntegerField(null=True, unique=True))]},
    "add foreign key": {
        "before": [create("Owner"), create()],
        "after": [
            field(
                "thing",
                "owner",
                models.ForeignKey(f"{migrating.APP}.owner", models.CASCADE, null=True),
            )
        ],
    },
    "add generated": {
        "after": [
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
    },
    "remove": {
        "after": [migrations.RemoveField("thing", "number")],
        "then": writes(insert="INSERT INTO {table} (name) VALUES ('a')"),
    },
    "remove secret-looking": {
        "before": [create("Thing", ("password", models.TextField(null=True)))],
        "after": [migrations.RemoveField("thing", "password")],
    },
    "remove foreign key": {
        "before": [
            create("Owner"),
            create(
                "Thing",
                ("owner", models.ForeignKey(f"{migrating.APP}.owner", models.CASCADE, null=True)),
            ),
        ],
        "after": [migrations.RemoveField("thing", "owner"), migrations.DeleteModel("Owner")],
    },
    "rename": {
        "after": [migrations.RenameField("thing", "number", "size")],
        "then": inserting("name, size", "'a', 1"),
    },
    "rename secret-looking": {
        "before": [create("Thing", ("password", models.TextField(null=True)))],
        "after": [migrations.RenameField("thing", "password", "note")],
    },
    "rename primary key": {"after": [migrations.RenameField("thing", "id", "code")]},
    "alter type": {"after": [alter("thing", "number", models.TextField())]},
    "alter null": {"after": [alter("thing", "number", models.IntegerField(null=True))]},
    "alter unique": {
        "after": [alter("thing", "name", models.CharField(max_length=50, unique=True))]
    },
    "alter length": {"after": [alter("thing", "name", models.CharField(max_length=99))]},
    "alter column": {
        "after": [alter("thing", "number", models.IntegerField(db_column="size"))],
        "then": inserting("name, size", "'a', 1"),
    },
    "alter index": {"after": [alter("thing", "number", models.IntegerField(db_index=True))]},
    "alter primary key": {
        "before": [create("Thing", ("id", models.AutoField(primary_key=True)))],
        "after": [alter("thing", "id", models.BigAutoField(primary_key=True))],
    },
    "rename model": {
        "after": [migrations.RenameModel("Thing", "Article")],
        "model": "Article",
        "then": writes("migrated_app_article"),
    },
    "alter table": {
        "after": [migrations.AlterModelTable("thing", "migrated_app_other")],
        "then": writes("migrated_app_other"),
    },
    "indexes": {
        "after": [
            migrations.AddIndex("thing", models.Index(fields=["number"], name="thing_number")),
            migrations.RenameIndex("thing", new_name="thing_size", old_name="thing_number"),
            migrations.RemoveIndex("thing", "thing_size"),
        ],
    },
    "constraints": {
        "after": [
            migrations.AddConstraint(
                "thing",
                models.CheckConstraint(
                    **{"check" if django.VERSION < (5, 1) else "condition": models.Q(number__gt=0)},
                    name="positive",
                ),
            ),
            migrations.AddConstraint(
                "thing", models.UniqueConstraint(fields=["name"], name="one_name")
            ),
            migrations.RemoveConstraint("thing", "positive"),
        ],
    },
    "unique together": {
        "after": [
            migrations.AlterUniqueTogether("thing", {("name", "number")}),
            migrations.AlterUniqueTogether("thing", set()),
        ],
    },
    "order with respect to": {
        "before": [
            create("Owner"),
            create(
                "Thing",
                ("owner", models.ForeignKey(f"{migrating.APP}.owner", models.CASCADE, null=True)),
            ),
        ],
        "after": [migrations.AlterOrderWithRespectTo("thing", "owner")],
        "then": inserting("name, number, _order", "'a', 1, 0"),
    },
    "comment": {"after": [migrations.AlterModelTableComment("thing", "All of them.")]},
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

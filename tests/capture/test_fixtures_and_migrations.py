"""Fixtures, data migrations, and databases without the log."""

import io

import pytest
from django.core import serializers
from django.core.management import call_command
from django.db import connection, transaction
from django.db.migrations.executor import MigrationExecutor

from django_cocobase_realtime.capture import recorder
from django_cocobase_realtime.models import LogEvent
from tests.capture_app.models import (
    Bug,
    Customer,
    Page,
    Task,
    UrgentBug,
)
from tests.support.watching import assert_log_gives_tables, logged, summary, watching

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


# multi-table rows in fixtures


def test_fixture_of_multi_table_child_is_logged_as_its_rows_are(tmp_path):
    rows = [Task(pk=7, title="a"), Bug(pk=7, severity=2), UrgentBug(pk=7)]
    fixture = tmp_path / "bugs.json"
    fixture.write_text(serializers.serialize("json", rows))
    with watching(Task, Bug, UrgentBug):
        call_command("loaddata", str(fixture), verbosity=0)
        assert {change.document_id for change in logged()} == {"7"}
        assert_log_gives_tables()
        fixture.write_text(fixture.read_text().replace('"a"', '"b"'))
        call_command("loaddata", str(fixture), verbosity=0)
        assert_log_gives_tables()
        assert logged("urgentbug")[-1].after["title"] == "b"


def test_fixture_of_child_with_own_key_is_logged(tmp_path):
    account_id = Customer.objects.create(number="x", name="other").account_id + 1
    text = (
        f'[{{"model": "capture_app.account", "pk": {account_id}, "fields": {{"name": "a"}}}},'
        ' {"model": "capture_app.customer", "pk": "n1", "fields":'
        f' {{"account": {account_id}, "vip": true}}}}]'
    )
    fixture = tmp_path / "customers.json"
    fixture.write_text(text)
    Customer.objects.all().delete()
    with watching(Customer):
        call_command("loaddata", str(fixture), verbosity=0)
        (change,) = logged("customer")
        assert (change.op, change.document_id) == ("created", "n1")
        assert (change.after["name"], change.after["vip"]) == ("a", True)


# migrations and databases without the log


def test_write_before_log_exists_is_not_an_error():
    """A migration of another app may load a fixture before this app's migrations have run."""
    with watching(Page, Bug):
        with connection.schema_editor() as editor:
            editor.alter_db_table(LogEvent, LogEvent._meta.db_table, "no_log_yet")
        recorder.forget_log_tables()
        try:
            with transaction.atomic():
                page = Page.objects.create()
                Page.objects.update(a=1)
                Bug.objects.create(title="b")
                Page.objects.bulk_create([Page()])
                page.delete()
                assert Page.objects.count() == 1  # the transaction is not broken
        finally:
            with connection.schema_editor() as editor:
                editor.alter_db_table(LogEvent, "no_log_yet", LogEvent._meta.db_table)
            recorder.forget_log_tables()
        assert logged() == []
        Page.objects.create()
        assert summary() == [("page", "created", None)]


def test_log_that_is_created_later_is_noticed_after_migrate():
    with watching(Page):
        with connection.schema_editor() as editor:
            editor.alter_db_table(LogEvent, LogEvent._meta.db_table, "no_log_yet")
        recorder.forget_log_tables()
        Page.objects.create()
        with connection.schema_editor() as editor:
            editor.alter_db_table(LogEvent, "no_log_yet", LogEvent._meta.db_table)
        call_command("migrate", verbosity=0, stdout=io.StringIO())
        Page.objects.create()
        assert [op for _, op, _ in summary()] == ["created"]


def test_historical_models_of_data_migrations_are_captured():
    from tests.app.models import Item, Post, Tag

    executor = MigrationExecutor(connection)
    apps = executor.loader.project_state(executor.loader.graph.leaf_nodes()).apps
    with watching(Item, Post):
        historical = apps.get_model("app", "Item")
        assert historical is not Item
        row = historical.objects.create(name="a")
        row.size = 2
        row.save()
        historical.objects.filter(name="a").update(size=3)
        historical.objects.bulk_create([historical(name="b")])
        post = apps.get_model("app", "Post").objects.create(title="p")
        post.tags.add(apps.get_model("app", "Tag").objects.create(name="t"))
        historical.objects.all().delete()
        assert [op for _, op, _ in summary("item")] == [
            "created",
            "updated",
            "updated",
            "created",
            "deleted",
            "deleted",
        ]
        assert summary("post") == [("post", "created", None), ("post", "updated", ("tags",))]
        assert Tag.objects.count() == 1
        assert_log_gives_tables()


def test_historical_model_with_other_columns_makes_subscribers_resync():
    from django_cocobase_realtime.models import Stream
    from tests.app.models import Item

    executor = MigrationExecutor(connection)
    state = executor.loader.project_state(executor.loader.graph.leaf_nodes()).clone()
    state.remove_field("app", "item", "size")
    historical = state.apps.get_model("app", "Item")
    with watching(Item):
        Item.objects.create(name="a")
        Stream.objects.get_or_create(collection="item")
        epoch = Stream.objects.get(collection="item").epoch
        historical.objects.filter(name="a").update(name="b")
        assert Stream.objects.get(collection="item").epoch != epoch

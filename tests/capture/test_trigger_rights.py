"""PostgreSQL: roles without rights, and tables that other transactions have locked."""

import threading
import uuid
from contextlib import contextmanager

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from django_cocobase_realtime.capture.triggers import installation, is_installed
from django_cocobase_realtime.capture.triggers.catalog import installed
from django_cocobase_realtime.capture.triggers.installation import remove_named
from django_cocobase_realtime.declarations.registry import registry
from tests.app.models import Item, Post, Restaurant, Tag
from tests.support.migrating import are_installed, epochs, events, execute, second_connection
from tests.support.watching import watching

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

INSERT = ["INSERT INTO app_item (name, size) VALUES ('raw', 1)"]


def migrate():
    call_command("migrate", verbosity=0)


def install(*names):
    call_command("realtime_triggers", "install", *names, verbosity=0)


@pytest.fixture(autouse=True)
def watched():
    with watching():
        migrate()  # content types, which the flush before this test has deleted
    with watching(Item, Post, capture="triggers"):
        yield
    remove_named("default", installed("default"))


@contextmanager
def acting_as(role):
    execute([f"SET ROLE {role}"])
    try:
        yield
    finally:
        execute(["RESET ROLE"])


if connection.vendor == "postgresql":

    @pytest.fixture
    def role():
        """Create a role that may write all tables, and create nothing."""
        name = f"writer_{uuid.uuid4().hex[:8]}"  # other tests use the same server
        execute(
            [
                f"CREATE ROLE {name}",
                f"GRANT USAGE ON SCHEMA public TO {name}",
                f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}",
                f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {name}",
            ]
        )
        yield name
        execute([f"DROP OWNED BY {name} CASCADE", f"DROP ROLE {name}"])

    def test_role_that_may_not_create_functions(role, caplog):
        first = epochs()
        with acting_as(role):
            migrate()
            assert installed("default") == {}
            assert caplog.text.count("could not be installed") == 2
            assert "permission denied for schema public" in caplog.text
            with pytest.raises(CommandError, match="item: permission denied"):
                install()
            # the statements of the ORM are captured
            Item.objects.create(name="a")
            assert events() == [("item", "created")]
            migrate()
        assert epochs() == first
        execute([f"GRANT CREATE ON SCHEMA public TO {role}"])
        execute([f"GRANT TRIGGER ON ALL TABLES IN SCHEMA public TO {role}"])
        with acting_as(role):
            install()
        assert are_installed()
        execute(INSERT)
        Item.objects.create(name="b")
        assert len(events()) == 3

    def test_role_without_rights_on_one_of_two_tables_creates_nothing(role):
        execute([f"GRANT CREATE ON SCHEMA public TO {role}"])
        execute([f"GRANT TRIGGER ON app_post, app_item TO {role}"])
        with acting_as(role):
            with pytest.raises(CommandError, match=r"post: permission denied for .*app_post_tags"):
                install()
            assert len(installed("default")) == 1
            assert is_installed(registry.get("item"))
            Post.objects.create(title="p").tags.add(Tag.objects.create(name="t"))
            assert events() == [("post", "created"), ("post", "updated")]

    @pytest.mark.parametrize("table", ["cocobase_realtime_logevent", "app_item"])
    def test_role_that_may_not_write_the_log_stops_no_writer(role, table):
        """The function runs with its rights: every write would fail."""
        execute([f"GRANT CREATE ON SCHEMA public TO {role}"])
        execute([f"GRANT TRIGGER ON app_item TO {role}"])
        execute([f"REVOKE INSERT, SELECT ON {table} FROM {role}"])
        with acting_as(role), pytest.raises(CommandError, match=f'no rights on "?{table}'):
            install("item")
        assert installed("default") == {}
        execute(INSERT)

    def test_triggers_of_another_role_stay_as_they_are(role, caplog):
        """It may not replace them; they log, so that the ORM does not."""
        migrate()
        with watching(Item, capture="triggers", fields=["name"]):
            first = installed("default")
            with acting_as(role):
                migrate()
                assert installed("default") == first
                assert "could not be installed" in caplog.text
                assert "could not be dropped" in caplog.text
                Item.objects.create(name="a")
            assert len(events()) == 1

    # locks

    @contextmanager
    def writing(statement="UPDATE app_item SET size = 1"):
        """Hold what a transaction of another session has locked."""
        with second_connection() as cursor:
            cursor.execute("BEGIN")
            cursor.execute(statement)
            yield
            cursor.execute("ROLLBACK")

    def test_locked_table_delays_installation_only_for_a_moment(monkeypatch, caplog):
        assert installation.LOCK_TIMEOUT == "3s"
        monkeypatch.setattr(installation, "LOCK_TIMEOUT", "50ms")
        with writing():
            migrate()
            assert not is_installed(registry.get("item"))
            assert is_installed(registry.get("post"))
            assert "collection 'item'" in caplog.text
            assert "lock timeout" in caplog.text
            with pytest.raises(CommandError, match="item: canceling statement due to lock timeout"):
                install()
            Item.objects.create(name="a")
            assert events() == [("item", "created")]
        install()
        assert are_installed()

    def test_limit_of_the_session_is_kept(monkeypatch):
        """A limit of its own is not replaced, and ours ends with the installation."""
        with connection.cursor() as cursor:
            for limit in ("20ms", "0"):
                cursor.execute(f"SET lock_timeout = '{limit}'")
                if limit != "0":
                    with writing(), pytest.raises(CommandError, match="lock timeout"):
                        install("item")
                else:
                    with transaction.atomic():
                        install("item")
                        cursor.execute("SHOW lock_timeout")
                        assert cursor.fetchone() == ("0",)
                cursor.execute("SHOW lock_timeout")
                assert cursor.fetchone() == (limit,)

    def test_changed_function_is_replaced_without_a_lock(monkeypatch):
        migrate()
        monkeypatch.setattr(installation, "LOCK_TIMEOUT", "50ms")
        first = epochs()
        with watching(Item, Post, capture="triggers", not_secret=["size"]), writing():
            migrate()
        with watching(Item, capture="triggers", fields=["name"]), writing():
            assert not are_installed()
            migrate()
            assert are_installed()
        assert epochs() == first

    def test_migrate_pauses_triggers_without_waiting_for_readers(monkeypatch):
        """A backup that reads all tables must not stop a deployment."""
        from django_cocobase_realtime.capture.triggers.migrations import (
            after_migrate,
            before_migrate,
        )

        plan = [(type("Migration", (), {"app_label": "app"}), False)]
        with watching(Restaurant, Item, capture="triggers"):
            migrate()
            first = epochs()
            monkeypatch.setattr(installation, "LOCK_TIMEOUT", "50ms")
            with writing("SELECT count(*) FROM app_restaurant, app_place"):
                before_migrate(using="default", plan=plan)
                Restaurant.objects.create(name="r")
                assert is_installed(registry.get("item"))
                assert not is_installed(registry.get("restaurant"))
                after_migrate(using="default", plan=plan)
                assert are_installed()
            changed = epochs()
            assert changed["item"] == first["item"]
            assert changed["restaurant"] != first["restaurant"]
            # a writer is waited for: what it wrote before is not logged
            with writing("UPDATE app_restaurant SET stars = 1"):
                before_migrate(using="default", plan=plan)
                after_migrate(using="default", plan=plan)
                assert not is_installed(registry.get("restaurant"))
            assert epochs()["restaurant"] != changed["restaurant"]
            install()
            assert are_installed()

    def test_needless_triggers_of_a_locked_table_do_nothing(monkeypatch, caplog):
        migrate()
        monkeypatch.setattr(installation, "LOCK_TIMEOUT", "50ms")
        with watching(Post, capture="triggers"), writing():
            migrate()
            assert "could not be dropped" in caplog.text
            execute(INSERT)
            assert events() == []
        with watching(Post, capture="triggers"):
            migrate()
            assert len(installed("default")) == 2

    def test_installation_does_not_miss_writers_that_have_not_committed():
        """It waits for them, since they have written without triggers."""
        thread = threading.Thread(target=lambda: (install("item"), connection.close()))
        with writing():
            thread.start()
            thread.join(0.3)
            assert thread.is_alive()
        thread.join()
        assert is_installed(registry.get("item"))

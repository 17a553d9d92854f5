"""Checks of what the databases support, and of the writes that are not seen."""

import sys
from types import SimpleNamespace

import pytest
from django.core.checks import run_checks
from django.core.management import call_command
from django.db import connections

from django_cocobase_realtime.checks import check_database, check_settings, check_writes, databases
from django_cocobase_realtime.checks.databases import check_tenants
from django_cocobase_realtime.log import postgres_numbering
from django_cocobase_realtime.utils.concurrency import worker_count
from tests.app.models import Post


def ids(messages):
    return [message.id.removeprefix("cocobase_realtime.") for message in messages]


@pytest.fixture(autouse=True)
def _posts(settings):
    settings.DEBUG = True
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": "app.Post", "items": "app.Item"}}


@pytest.fixture
def _mysql(monkeypatch):
    """Let the default database look like one of MySQL."""
    monkeypatch.setattr(connections["default"], "vendor", "mysql")
    monkeypatch.setattr(connections["default"], "display_name", "MySQL")


@pytest.mark.usefixtures("_mysql")
def test_collections_and_presence_in_mysql_are_reported():
    messages = check_settings()
    assert ids(messages) == ["W017", "W100"]
    assert "'posts', 'items'" in messages[0].msg
    assert "collections work there, rooms do not" in messages[0].msg


@pytest.mark.usefixtures("_mysql")
@pytest.mark.parametrize(
    "backend", ["memory", "django_cocobase_realtime.presence.memory.MemoryPresence"]
)
def test_presence_outside_of_mysql_is_not_reported(settings, backend):
    settings.COCOBASE_REALTIME = {"PRESENCE": {"BACKEND": backend}}
    assert "W100" not in ids(check_settings())
    path = "django_cocobase_realtime.presence.database.DatabasePresence"
    settings.COCOBASE_REALTIME = {"PRESENCE": {"BACKEND": path}}
    assert ids(check_settings()) == ["W100"]


class TenantSyncRouter:
    """Named as the router of ``django_tenants`` is."""


@pytest.mark.parametrize(
    "changed",
    [
        {"DATABASES": {"default": {"ENGINE": "django_tenants.postgresql_backend"}}},
        {"DATABASES": {"default": {"ENGINE": "tenant_schemas.postgresql_backend"}}},
        {"DATABASE_ROUTERS": ["django_tenants.routers.TenantSyncRouter"]},
        {"DATABASE_ROUTERS": [TenantSyncRouter()]},
        {"SHARED_APPS": ["a"], "TENANT_APPS": ["b"]},
    ],
)
def test_schema_per_tenant_is_refused(monkeypatch, changed):
    assert list(check_tenants()) == []
    # not in Django's own settings: that would have it connect to other databases
    values = {"DATABASES": {}, "DATABASE_ROUTERS": [], **changed}
    monkeypatch.setattr(
        "django_cocobase_realtime.checks.databases.settings", SimpleNamespace(**values)
    )
    assert ids(check_tenants()) == ["E018"]
    assert "E018" in ids(check_settings())


def test_unseen_writes_are_reported_by_the_check_command_only(monkeypatch):
    for command in ("runserver", "migrate", "test", "shell"):
        monkeypatch.setattr("sys.argv", ["manage.py", command, "check"])
        assert check_writes() == []
    monkeypatch.setattr("sys.argv", ["manage.py", "check"])
    (message,) = check_writes()
    assert ids([message]) == ["I082"]
    assert "app.Item, app.Post" in message.msg


@pytest.mark.django_db(databases=["default", "other"])
def test_check_command_shows_unseen_writes(monkeypatch, capsys):
    call_command("check")
    assert "I082" not in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["manage.py", "check"])
    call_command("check")
    assert "cocobase_realtime.I082" in capsys.readouterr().err
    assert "I082" in ids(m for m in run_checks() if m.id.startswith("cocobase"))


def test_models_that_django_does_not_manage_are_reported(monkeypatch):
    monkeypatch.setattr("sys.argv", ["manage.py", "check"])
    monkeypatch.setattr(Post._meta, "managed", False)
    assert ids(check_writes()) == ["I082", "I083"]


def test_writes_to_tables_with_triggers_are_not_reported(monkeypatch, settings):
    monkeypatch.setattr("sys.argv", ["manage.py", "check"])
    monkeypatch.setattr(connections["default"], "vendor", "postgresql")
    triggers = {"model": "app.Item", "capture": "triggers"}
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"items": triggers}}
    assert check_writes() == []


def test_mistakes_in_the_setting_hide_the_unseen_writes(monkeypatch, settings):
    monkeypatch.setattr("sys.argv", ["manage.py", "check"])
    for wrong in (5, {"COLLECTIONS": 5}, {"COLLECTIONS": {"posts": "app.Nothing"}}):
        settings.COCOBASE_REALTIME = wrong
        assert check_writes() == []


@pytest.mark.parametrize(
    ("pool", "workers", "usable"),
    [
        (None, 4, None),
        (False, 4, None),
        (True, 4, 2),
        (True, 2, None),
        ({"max_size": 2}, 4, 1),
        ({"min_size": 3}, 4, 1),
        ({"min_size": 2, "max_size": 6}, 4, None),
        ({"min_size": 2, "max_size": 6}, 5, 4),
    ],
)
def test_small_connection_pool_is_reported_and_limits_workers(
    settings, monkeypatch, pool, workers, usable
):
    monkeypatch.setitem(connections.settings["other"], "OPTIONS", {"pool": pool})
    settings.COCOBASE_REALTIME = {"WORKERS": workers}
    assert worker_count() == (usable or workers)
    messages = [message for message in check_settings() if message.id.endswith("W062")]
    assert len(messages) == (usable is not None)
    for message in messages:
        assert "'other'" in message.msg
        assert f"only {usable} of {workers}" in message.msg
        assert f"to {workers + 2} or more" in message.hint


@pytest.mark.skipif(connections["default"].vendor != "postgresql", reason="Needs PostgreSQL.")
@pytest.mark.django_db(databases=["default", "other"])
def test_way_of_announcements_is_reported_with_the_database_checks(monkeypatch):
    assert check_database(databases=["default", "other"]) == []
    monkeypatch.setattr(databases, "supports_listen", lambda using: False)
    (message,) = check_database(databases=["default"])
    assert ids([message]) == ["I084"]
    assert "psycopg 2" in message.msg


@pytest.mark.skipif(connections["default"].vendor != "postgresql", reason="Needs PostgreSQL.")
@pytest.mark.django_db(databases=["default"])
def test_refused_connection_for_announcements_is_reported(monkeypatch):
    monkeypatch.setitem(connections["default"].settings_dict, "USER", "no_such_role")
    (message,) = check_database(databases=["default"])
    assert ids([message]) == ["I084"]
    assert "no_such_role" in message.msg


@pytest.mark.skipif(connections["default"].vendor != "postgresql", reason="Needs PostgreSQL.")
@pytest.mark.django_db(databases=["default"])
@pytest.mark.parametrize(
    ("options", "signature", "reason"),
    [
        ({}, "not_installed()", "is not installed"),
        ({"pool": True}, postgres_numbering._SIGNATURE, "the pool of connections"),
    ],
)
def test_numbering_in_a_thread_is_reported(monkeypatch, options, signature, reason):
    monkeypatch.setattr(sys, "argv", ["manage.py", "check"])
    monkeypatch.setattr(postgres_numbering, "_SIGNATURE", signature)
    monkeypatch.setitem(connections["default"].settings_dict, "OPTIONS", options)
    message = check_database(databases=["default"])[-1]
    assert ids([message]) == ["I085"]
    assert reason in message.msg

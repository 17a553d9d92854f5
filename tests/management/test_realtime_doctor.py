"""The command ``realtime_doctor``."""

import io
import json
import threading
import time
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from django.utils import timezone
from websockets.sync.client import connect

from django_cocobase_realtime.capture.triggers import install, remove
from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.management.doctor import base, database, log, process, services
from django_cocobase_realtime.management.doctor.base import Finding, Probe, run_probe
from django_cocobase_realtime.models import LogEvent, Stream
from tests.app.models import Post
from tests.support.log import read_all
from tests.support.servers import free_port

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

POSTS = {"COLLECTIONS": {"posts": "app.Post"}}


@pytest.fixture(autouse=True)
def _posts(settings, monkeypatch):
    settings.COCOBASE_REALTIME = POSTS
    # on a busy machine, a probe may take long
    monkeypatch.setattr(base, "PROBE_TIMEOUT", 60.0)


def run(*args, fails=False):
    """Run the command, and return what it prints."""
    out = io.StringIO()
    if fails:
        with pytest.raises(CommandError) as raised:
            call_command("realtime_doctor", *args, stdout=out)
        assert raised.value.returncode == 1
    else:
        call_command("realtime_doctor", *args, stdout=out)
    return out.getvalue()


def levels(findings):
    return [finding.level for finding in findings]


def only(findings):
    (finding,) = findings
    return finding


def test_healthy_installation_has_no_failure():
    Post.objects.create(title="a")
    read_all()
    report = json.loads(run("--json"))
    assert report["ok"] is True
    assert {f["level"] for f in report["findings"]} <= {"ok", "warn"}
    probes = {f["probe"] for f in report["findings"]}
    assert probes >= {
        "settings", "database default", "tables default", "numbering default", "retention default",
        "clock default", "channel layer", "presence", "open files", "server", "application",
    }  # fmt: skip
    assert set(report["seconds"]) >= probes
    lines = run().splitlines()
    assert any(line.startswith("ok    clock default") for line in lines)
    assert not any("\x1b" in line or line.startswith("fail") for line in lines)
    assert not Stream.objects.filter(collection__startswith="doctor").exists()


def test_mistake_in_settings_is_failure_with_hint(settings):
    settings.COCOBASE_REALTIME = {**POSTS, "NOTHING": 1}
    text = run(fails=True)
    assert "fail  settings" in text
    assert "E002" in text
    assert "Known keys are" in text


def test_checks_for_production_need_option():
    messages = [f.message for f in process.probe_settings()]
    assert not any("W051" in message for message in messages)
    messages = [f.message for f in process.probe_settings(deploy=True)]
    assert any("W051" in message for message in messages)


@pytest.mark.parametrize("kind", ["core", "pubsub"])
def test_round_trip_through_redis_is_measured(settings, redis, kind):
    settings.CHANNEL_LAYERS = redis.layer(kind)
    finding = only(run_probe(Probe("layer", services.probe_layer)).findings)
    assert finding.level in ("ok", "warn")
    assert "comes back in" in finding.message
    settings.COCOBASE_REALTIME = {**POSTS, "PRESENCE": {"BACKEND": "redis", "URL": redis.url}}
    finding = only(run_probe(Probe("presence", services.probe_presence)).findings)
    assert (finding.level, finding.message[:13]) == ("ok", "RedisPresence")


@pytest.mark.parametrize("kind", ["core", "pubsub"])
def test_redis_that_does_not_answer_is_failure(settings, kind):
    address = f"redis://:xyzzy@127.0.0.1:{free_port()}/0"
    names = {"core": "RedisChannelLayer", "pubsub": "RedisPubSubChannelLayer"}
    backend = f"channels_redis.{kind}.{names[kind]}"
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend, "CONFIG": {"hosts": [address]}}}
    settings.COCOBASE_REALTIME = {**POSTS, "PRESENCE": {"BACKEND": "redis", "URL": address}}
    result = run_probe(Probe("layer", services.probe_layer, "the hint"))
    assert (levels(result.findings), result.findings[0].hint) == (["fail"], "the hint")
    assert "xyzzy" not in str(result)
    result = run_probe(Probe("presence", services.probe_presence, "the hint"))
    assert (levels(result.findings), result.findings[0].hint) == (["fail"], "the hint")
    assert "xyzzy" not in str(result)


def test_server_processes_are_asked(settings, serve, redis, api_key, monkeypatch):
    settings.CHANNEL_LAYERS = redis.layer("core")
    server = serve("uvicorn", layers=redis.layer("core"))
    assert "No server process" in only(services.probe_processes()).message
    with connect(f"ws://127.0.0.1:{server.port}/realtime") as client:
        client.send(json.dumps({"type": "auth", "token": api_key}))
        assert json.loads(client.recv(10))["type"] == "authenticated"
        finding = only(services.probe_processes())
        assert finding.level == "ok"
        assert "1 server processes with 1 connections have answered in" in finding.message
        server.suspend()
        monkeypatch.setattr(services, "ANSWER_TIMEOUT", 0.3)
        assert levels(services.probe_processes()) == ["warn"]
        server.resume()


def test_missing_layer_is_failure(settings):
    settings.CHANNEL_LAYERS = {}
    assert levels(services.probe_layer()) == ["fail"]


def test_database_that_cannot_be_reached_ends_its_probes(monkeypatch):
    monkeypatch.setattr(database, "connections", {"default": None})
    text = run(fails=True)
    assert "fail  database default" in text
    assert "Look at DATABASES" in text
    assert "retention default" not in text


def test_database_that_cannot_be_written_is_failure(monkeypatch):
    from django.db import OperationalError

    def refuse(*args, **kwargs):
        raise OperationalError("read-only\ntransaction")

    monkeypatch.setattr(Stream.objects.__class__, "using", refuse)
    first, second = database.probe_connection("default")
    assert (first.level, second.level) == ("ok", "fail")
    assert "read-only transaction" in second.message


def test_unapplied_migrations_are_failure():
    connection = connections["default"]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name, applied FROM django_migrations WHERE app = 'cocobase_realtime' "
            "ORDER BY name DESC LIMIT 1"
        )
        name, applied = cursor.fetchone()
        cursor.execute("DELETE FROM django_migrations WHERE name = %s", [name])
    try:
        finding = only(database.probe_tables("default"))
    finally:
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO django_migrations (app, name, applied) VALUES (%s, %s, %s)",
                ["cocobase_realtime", name, applied],
            )
    assert finding.level == "fail"
    assert name in finding.message
    assert levels(database.probe_tables("default")) == ["ok"]


def test_missing_and_needless_triggers(settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": {"model": "app.Post", "capture": "triggers"}}
    }
    collection = registry.get("posts")
    try:
        finding = only(database.probe_triggers("default"))
        assert (finding.level, "posts" in finding.message) == ("fail", True)
        assert "realtime_triggers install" in finding.hint
        install(collection)
        assert levels(database.probe_triggers("default")) == ["ok"]
        settings.COCOBASE_REALTIME = POSTS
        assert levels(database.probe_triggers("default")) == ["warn"]
    finally:
        remove(collection)
    assert levels(database.probe_triggers("default")) == []


def test_events_without_number_for_long_are_reported():
    Post.objects.create(title="a")
    assert levels(log.probe_numbering("default")) == ["ok"]
    LogEvent.objects.update(created_at=timezone.now() - timedelta(hours=1))
    finding = only(log.probe_numbering("default"))
    assert finding.level == "warn"
    assert "posts (1, for 3600 s)" in finding.message
    read_all()
    assert levels(log.probe_numbering("default")) == ["ok"]


def test_log_that_is_not_trimmed_is_reported(settings):
    for title in "ab":
        Post.objects.create(title=title)
    read_all()
    assert "has 2 events" in only(log.probe_retention("default")).message
    LogEvent.objects.update(created_at=timezone.now() - timedelta(days=100))
    finding = only(log.probe_retention("default"))
    assert (finding.level, "posts (since " in finding.message) == ("warn", True)
    settings.COCOBASE_REALTIME = {**POSTS, "LOG": {"MAX_AGE": None, "MAX_EVENTS": 10}}
    assert levels(log.probe_retention("default")) == ["ok"]
    Stream.objects.update(head=100_000)
    assert "99990 events too many" in only(log.probe_retention("default")).message
    settings.COCOBASE_REALTIME = {**POSTS, "LOG": {"MAX_AGE": None, "MAX_EVENTS": None}}
    assert "never trimmed" in only(log.probe_retention("default")).message


@pytest.mark.parametrize(
    ("skew", "level", "text"),
    [(0, "ok", "the database"), (5, "warn", "ahead of"), (-60, "fail", "behind")],
)
def test_clocks_are_compared(monkeypatch, skew, level, text):
    clock = database.database_time
    monkeypatch.setattr(database, "database_time", lambda *args: clock(*args) + skew)
    finding = only(database.probe_clock("default"))
    assert finding.level == level
    assert text in finding.message
    assert bool(finding.hint) is bool(skew)


def test_limit_of_open_files_is_compared_with_connections(monkeypatch):
    monkeypatch.setattr(process, "open_files_limit", lambda: 1024)
    finding = only(process.probe_open_files())
    assert (finding.level, "1024" in finding.message) == ("warn", True)
    monkeypatch.setattr(process, "open_files_limit", lambda: 65536)
    assert levels(process.probe_open_files()) == ["ok"]
    monkeypatch.setattr(process, "open_files_limit", lambda: None)
    assert levels(process.probe_open_files()) == []


def test_bad_options_of_servers_are_reported(monkeypatch):
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    assert levels(process.probe_server()) == ["ok"]
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--bind 1.2.3.4 -k gthread")
    first, second, third = process.probe_server()
    assert "gthread" in second.message
    assert (third.level, "4 processes" in third.message) == ("fail", True)
    monkeypatch.setattr(process, "_version", lambda name: None)
    assert process.SERVERS
    assert next(process.probe_server()).level == "fail"
    assert first.level == "ok"


def test_application_without_websockets_is_failure(settings, monkeypatch):
    assert levels(process.probe_application()) == ["ok"]
    from tests import asgi

    monkeypatch.delitem(asgi.application.application_mapping, "websocket")
    assert levels(process.probe_application()) == ["fail"]
    settings.ASGI_APPLICATION = "tests.nothing.application"
    assert levels(run_probe(Probe("application", process.probe_application)).findings) == ["fail"]


@pytest.mark.skipif("connections['default'].vendor != 'postgresql'")
def test_postgres_announces_and_numbers_events(monkeypatch):
    assert levels(database.probe_announcements("default")) == ["ok", "ok"]
    assert levels(database.probe_capacity("default")) == ["ok"]
    monkeypatch.setenv("WEB_CONCURRENCY", "1000")
    assert levels(database.probe_capacity("default")) == ["warn"]


def test_probe_that_hangs_or_raises_is_failure():
    released = threading.Event()

    def hang():
        yield Finding("ok", "begun")
        released.wait(10)

    started_at = time.monotonic()
    result = run_probe(Probe("slow", hang, "the hint"), timeout=0.1)
    assert time.monotonic() - started_at < 5
    assert result.is_failed
    assert ("0.1 seconds" in result.findings[-1].message, result.findings[-1].hint) == (
        True,
        "the hint",
    )
    released.set()

    def fail():
        yield Finding("ok", "begun")
        raise ValueError("one\ntwo")

    result = run_probe(Probe("broken", fail, "the hint"))
    assert result.findings == (
        Finding("ok", "begun"),
        Finding("fail", "ValueError: one two", "the hint"),
    )

"""System checks of COCOBASE_REALTIME and its environment."""

import pytest
from django.core.checks import run_checks

from django_cocobase_realtime import Collection, register
from django_cocobase_realtime.checks import check_settings
from django_cocobase_realtime.declarations.registry import registry
from tests.app.models import Author, Post


class AllowSubscribe:
    def can_subscribe(self, identity, filters):
        return True


class WithoutMethods:
    pass


async def asynchronous(identity):
    return {"name": "x"}


not_callable = 5
LIMITS = "LIMITS"
MEMORY = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}


def collections(**options):
    return {"COLLECTIONS": {"posts": {"model": "app.Post", **options}}}


@pytest.mark.django_db(databases=["default", "other"])  # Django's own checks use both databases
@pytest.mark.parametrize(
    ("value", "id"),
    [
        (5, "E001"),
        ({"COLLECTIONS": ["app.Post"]}, "E001"),
        ({"COLLECTION": {}}, "E002"),
        ({"COLLECTIONS": {7: "app.Post"}}, "E003"),
        ({"COLLECTIONS": {"": "app.Post"}}, "E003"),
        ({"COLLECTIONS": {"x" * 129: "app.Post"}}, "E003"),
        ({"COLLECTIONS": {"posts": 5}}, "E004"),
        ({"COLLECTIONS": {"posts": {"fields": ["title"]}}}, "E004"),
        (collections(colour="red"), "E004"),
        (collections(fields="title"), "E004"),
        (collections(fields=[1]), "E004"),
        (collections(durable="yes"), "E004"),
        (collections(capture="magic"), "E004"),
        ({"COLLECTIONS": {"posts": "app.Nothing"}}, "E005"),
        ({"COLLECTIONS": {"posts": "nothing"}}, "E005"),
        ({"COLLECTIONS": {"users": "auth.AbstractUser"}}, "E005"),
        (collections(fields=["title", "nothing"]), "E006"),
        (collections(filters=["nothing"]), "E006"),
        (collections(permission_fields=["nothing"]), "E006"),
        (collections(exclude=["nothing"]), "E006"),
        (collections(exclude="title"), "E004"),
        (collections(aliases="articles"), "E004"),
        (collections(aliases=["posts"]), "E019"),
        (collections(project_field="nothing"), "E006"),
        (collections(created_field="nothing"), "E006"),
        (collections(soft_delete="nothing"), "E006"),
        (collections(soft_delete={"nothing": True}), "E006"),
        (collections(soft_delete={"status_contains": 5}), "E006"),
        (collections(soft_delete=[1]), "E004"),
        (collections(soft_delete={"owner": None}), "E004"),
        ({"COLLECTIONS": {"a": {"model": "app.Author", "fields": ["password"]}}}, "E007"),
        ({"COLLECTIONS": {"a": {"model": "app.Author", "filters": ["password"]}}}, "E007"),
        (
            {"COLLECTIONS": {"a": {"model": "app.Author", "permission_fields": ["password"]}}},
            "E007",
        ),
        ({"COLLECTIONS": {"a": "sessions.Session"}}, "E007"),
        (collections(permission="nowhere.Nothing"), "E008"),
        (collections(serializer="nowhere.Nothing"), "E008"),
        (collections(serializer=f"{__name__}.not_callable"), "E008"),
        (collections(permission=f"{__name__}.WithoutMethods"), "E009"),
        ({"LIMITS": []}, "E020"),
        ({"LIMITS": {"subscription": 5}}, "E020"),
        ({LIMITS: {"event_bytes": 1_000_000}}, "E022"),
        ({LIMITS: {"state_bytes": 1_000_000}}, "E022"),
        ({LIMITS: {"message_bytes": 1_000_000}}, "E022"),
        ({"LIMITS": {"subscriptions": 0}}, "E021"),
        ({"LIMITS": {"subscriptions": True}}, "E021"),
        ({"LIMITS": {"subscriptions": None}}, "E021"),
        ({"LIMITS": {"messages_rate": 5}}, "E021"),
        ({"LIMITS": {"messages_rate": (5, 0)}}, "E021"),
        ({"LOG": 5}, "E025"),
        ({"LOG": {"MAX": 5}}, "E025"),
        ({"LOG": {"MAX_AGE": 0}}, "E026"),
        ({"LOG": {"POLL": None}}, "E026"),
        ({"JWT": "secret"}, "E030"),
        ({"JWT": {"KEY": "k" * 40, "ALGORITHM": "HS256"}}, "E030"),
        ({"JWT": {"KEY": "k" * 40, "ALGORITHMS": "HS256"}}, "E031"),
        ({"JWT": {"KEY": "k" * 40, "ALGORITHMS": ["none"]}}, "E031"),
        ({"JWT": {"KEY": "k" * 40, "ALGORITHMS": ["HS256", "RS256"]}}, "E031"),
        ({"JWT": {"ALGORITHMS": ["HS256"]}}, "E032"),
        ({"JWT": {"KEY": "k" * 40, "JWKS_URL": "https://x"}}, "E032"),
        ({"JWT": {"KEY": "short"}}, "W033"),
        ({"AUTHENTICATORS": "a.b.C"}, "E040"),
        ({"AUTHENTICATORS": ["nowhere.Nothing"]}, "E040"),
        ({"MEMBER": 5}, "E041"),
        ({"MEMBER": "nowhere.nothing"}, "E041"),
        ({"MEMBER": f"{__name__}.not_callable"}, "E041"),
        ({"MEMBER": f"{__name__}.asynchronous"}, "E041"),
        ({"CHANNEL_LAYER": "nothing"}, "E050"),
        ({"HEARTBEAT": 0}, "E060"),
        ({"DRAIN": -1}, "E060"),
        ({"DRAIN": 601}, "E060"),
        ({"DRAIN": float("nan")}, "E060"),
        ({"DRAIN": "8"}, "E060"),
        ({"DRAIN": None}, "E060"),
        ({"REVOCATION_POLL": 60}, "E060"),
        ({"WORKERS": 0}, "E060"),
        ({"WORKERS": "4"}, "E060"),
        ({"ALLOWED_ORIGINS": "https://example.com"}, "E061"),
    ],
)
def test_invalid_value_is_reported_by_its_check(settings, value, id):
    settings.DEBUG = True
    settings.COCOBASE_REALTIME = value
    reported = [message.id for message in check_settings()]
    assert reported == [f"cocobase_realtime.{id}"]
    assert f"cocobase_realtime.{id}" in [message.id for message in run_checks()]


def test_valid_settings_pass_all_checks(settings):
    settings.DEBUG = True
    settings.COCOBASE_REALTIME = {
        **collections(
            fields=["title", "status"], filters=["status"], permission=f"{__name__}.AllowSubscribe"
        ),
        "JWT": {"KEY": "k" * 40},
        "LIMITS": {"subscriptions": 5, "messages_rate": [1, 2], "idle_timeout": None},
        "ALLOWED_ORIGINS": ["https://example.com"],
    }
    assert check_settings() == []
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"items": "app.Item"}}
    assert check_settings() == []


def test_outdated_daphne_and_missing_apps_are_reported(settings, monkeypatch):
    settings.COCOBASE_REALTIME = {}
    assert check_settings() == []
    monkeypatch.setattr("django_cocobase_realtime.checks.environment.version", lambda name: "4.1.2")
    assert [m.id for m in check_settings()] == ["cocobase_realtime.W070"]
    settings.INSTALLED_APPS = [
        a for a in settings.INSTALLED_APPS if a not in ("channels", "daphne")
    ]
    assert [m.id for m in check_settings()] == ["cocobase_realtime.W052"]


@pytest.mark.parametrize(
    ("name", "value", "is_reported"),
    [
        ("UVICORN_WS_PER_MESSAGE_DEFLATE", "true", True),
        ("UVICORN_WS_PER_MESSAGE_DEFLATE", "False", False),
        ("UVICORN_WS_MAX_SIZE", "16777216", True),
        ("UVICORN_WS_MAX_SIZE", "65536", False),
        ("DAPHNE_WEBSOCKET_MAX_MESSAGE_SIZE", 0, True),
        ("DAPHNE_WEBSOCKET_MAX_MESSAGE_SIZE", 1024 * 1024, False),
        ("DAPHNE_WEBSOCKET_MAX_FRAME_SIZE", None, True),
    ],
)
def test_settings_that_accept_any_message_are_reported(
    settings, monkeypatch, name, value, is_reported
):
    settings.COCOBASE_REALTIME = {}
    settings.DEBUG = True
    if name.startswith("UVICORN"):
        monkeypatch.setenv(name, value)
    else:
        setattr(settings, name, value)
    messages = check_settings()
    assert [m.id for m in messages] == ["cocobase_realtime.W056"] * is_reported
    assert all(name in m.msg for m in messages)


@pytest.mark.parametrize(
    ("argv", "app", "ids"),
    [
        (["manage.py", "runserver"], "django.contrib.staticfiles", ["W054"]),
        (["manage.py", "runserver", "8001"], "django.core", ["W054"]),
        (["manage.py", "runserver"], "daphne", []),
        (["manage.py", "migrate"], "django.contrib.staticfiles", []),
    ],
)
def test_runserver_without_websockets_is_reported(settings, monkeypatch, argv, app, ids):
    settings.COCOBASE_REALTIME = {}
    settings.DEBUG = True
    monkeypatch.setattr("sys.argv", argv)
    monkeypatch.setattr(
        "django_cocobase_realtime.checks.environment.get_commands", lambda: {"runserver": app}
    )
    assert [m.id.removeprefix("cocobase_realtime.") for m in check_settings()] == ids


class OtherDatabaseRouter:
    """Route posts to database "other", where the log may be missing."""

    log, reads = True, "other"

    def db_for_write(self, model, **hints):
        return "other" if model is Post else None

    def db_for_read(self, model, **hints):
        return self.reads if model is Post else None

    def allow_migrate(self, db, app_label, **hints):
        return self.log if db == "other" and app_label == "cocobase_realtime" else None


class RouterWithoutLog(OtherDatabaseRouter):
    log = False


class ReplicaRouter(OtherDatabaseRouter):
    reads = "default"


@pytest.mark.parametrize(
    ("router", "ids"),
    [(OtherDatabaseRouter, []), (RouterWithoutLog, ["E015"]), (ReplicaRouter, ["W016"])],
)
def test_database_router_without_log_or_with_replica_is_reported(settings, router, ids):
    settings.DEBUG = True
    settings.DATABASE_ROUTERS = [f"{__name__}.{router.__name__}"]
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": "app.Post"}}
    reported = [m.id.removeprefix("cocobase_realtime.") for m in check_settings()]
    assert reported == ids


@pytest.mark.parametrize(
    ("hosts", "ids"),
    [
        (None, ["W053"]),
        (["redis://r"], ["W053"]),
        ([{"address": "redis://r"}], ["W053"]),
        ([{"address": "redis://r", "socket_timeout": 5}], ["W053"]),
        ([{"address": "redis://r", "socket_timeout": 15}], []),
        ([{"address": "redis://r", "socket_timeout": None}], []),
    ],
)
def test_redis_py_8_without_socket_timeout_is_reported(settings, monkeypatch, hosts, ids):
    settings.COCOBASE_REALTIME = {}
    monkeypatch.setattr("django_cocobase_realtime.checks.environment.version", lambda name: "8.1.0")
    backend = "channels_redis.core.RedisChannelLayer"
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend, "CONFIG": {"hosts": hosts}}}
    reported = [m.id.removeprefix("cocobase_realtime.") for m in check_settings()]
    assert reported == ids
    monkeypatch.setattr("django_cocobase_realtime.checks.environment.version", lambda name: "7.1.0")
    assert check_settings() == []


def test_collection_class_and_setting_with_same_name_are_reported(settings):
    settings.DEBUG = True

    @register("authors")
    class Authors(Collection):
        model = Author

    try:
        settings.COCOBASE_REALTIME = {"COLLECTIONS": {"authors": "app.Author"}}
        assert [m.id for m in check_settings()] == ["cocobase_realtime.E010"]
        settings.COCOBASE_REALTIME = {}
        assert check_settings() == []
        assert isinstance(registry.get("authors"), Authors)
        assert registry.get("authors").name == "authors"
    finally:
        registry.unregister("authors")

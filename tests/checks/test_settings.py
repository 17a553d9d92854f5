"""Settings: read live, and each mistake a check with an id and a hint."""

import pytest
from django.core.checks import run_checks

from django_cocobase_realtime import Collection, register
from django_cocobase_realtime.checks import check_settings
from django_cocobase_realtime.conf import conf
from django_cocobase_realtime.declarations.registry import UnknownCollection, registry
from tests.app.models import Author, Post


class Decides:
    def can_subscribe(self, identity, filters):
        return True


class Undecided:
    pass


not_callable = 5
LIMITS = "LIMITS"
MEMORY = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}


def collections(**options):
    return {"COLLECTIONS": {"posts": {"model": "app.Post", **options}}}


@pytest.mark.django_db(databases=["default", "other"])  # Django's own checks look at it
@pytest.mark.parametrize(
    ("value", "id"),
    [
        (5, "E001"),
        ({"COLLECTIONS": ["app.Post"]}, "E001"),
        ({"COLLECTION": {}}, "E002"),
        ({"COLLECTIONS": {7: "app.Post"}}, "E003"),
        ({"COLLECTIONS": {"": "app.Post"}}, "E003"),
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
        (collections(project_field="nothing"), "E006"),
        (collections(created_field="nothing"), "E006"),
        (collections(soft_delete="nothing"), "E006"),
        (collections(soft_delete={"nothing": True}), "E006"),
        (collections(soft_delete={"status_contains": 5}), "E006"),
        (collections(soft_delete=[1]), "E004"),
        ({"COLLECTIONS": {"a": {"model": "app.Author", "fields": ["password"]}}}, "E007"),
        ({"COLLECTIONS": {"a": {"model": "app.Author", "filters": ["password"]}}}, "E007"),
        ({"COLLECTIONS": {"a": "sessions.Session"}}, "E007"),
        (collections(permission="nowhere.Nothing"), "E008"),
        (collections(serializer="nowhere.Nothing"), "E008"),
        (collections(serializer=f"{__name__}.not_callable"), "E008"),
        (collections(permission=f"{__name__}.Undecided"), "E009"),
        ({"LIMITS": []}, "E020"),
        ({"LIMITS": {"subscription": 5}}, "E020"),
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
        ({"CHANNEL_LAYER": "nothing"}, "E050"),
        ({"HEARTBEAT": 0}, "E060"),
        ({"REVOCATION_POLL": 60}, "E060"),
        ({"WORKERS": 0}, "E060"),
        ({"WORKERS": "4"}, "E060"),
        ({"ALLOWED_ORIGINS": "https://example.com"}, "E061"),
    ],
)
def test_each_mistake_has_its_check(settings, value, id):
    settings.DEBUG = True
    settings.COCOBASE_REALTIME = value
    found = [message.id for message in check_settings()]
    assert found == [f"cocobase_realtime.{id}"]
    assert f"cocobase_realtime.{id}" in [message.id for message in run_checks()]


def test_a_good_setting_has_nothing_to_say(settings):
    settings.DEBUG = True
    settings.COCOBASE_REALTIME = {
        **collections(
            fields=["title", "status"], filters=["status"], permission=f"{__name__}.Decides"
        ),
        "JWT": {"KEY": "k" * 40},
        "LIMITS": {"subscriptions": 5, "messages_rate": [1, 2], "idle_timeout": None},
        "ALLOWED_ORIGINS": ["https://example.com"],
    }
    # but that a plain manager's bulk writes are not seen
    assert [m.id for m in check_settings()] == ["cocobase_realtime.I080"]
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"items": "app.Item"}}
    assert check_settings() == []


def test_layers_and_servers(settings, monkeypatch):
    settings.COCOBASE_REALTIME = {}
    assert [m.id for m in check_settings()] == ["cocobase_realtime.W051"]
    settings.DEBUG = True
    monkeypatch.setattr("django_cocobase_realtime.checks.environment.version", lambda name: "4.1.2")
    assert [m.id for m in check_settings()] == ["cocobase_realtime.W070"]
    settings.INSTALLED_APPS = [
        a for a in settings.INSTALLED_APPS if a not in ("channels", "daphne")
    ]
    assert [m.id for m in check_settings()] == ["cocobase_realtime.W052"]


@pytest.mark.parametrize(
    ("argv", "home", "ids"),
    [
        (["manage.py", "runserver"], "django.contrib.staticfiles", ["W054"]),
        (["manage.py", "runserver", "8001"], "django.core", ["W054"]),
        (["manage.py", "runserver"], "daphne", []),
        (["manage.py", "migrate"], "django.contrib.staticfiles", []),
    ],
)
def test_a_runserver_without_sockets(settings, monkeypatch, argv, home, ids):
    settings.COCOBASE_REALTIME = {}
    settings.DEBUG = True
    monkeypatch.setattr("sys.argv", argv)
    monkeypatch.setattr(
        "django_cocobase_realtime.checks.environment.get_commands", lambda: {"runserver": home}
    )
    assert [m.id.removeprefix("cocobase_realtime.") for m in check_settings()] == ids


class OtherDatabaseRouter:
    """Posts live in the other database; replicas and the log do as the test says."""

    log, reads = True, "other"

    def db_for_write(self, model, **hints):
        return "other" if model is Post else None

    def db_for_read(self, model, **hints):
        return self.reads if model is Post else None

    def allow_migrate(self, db, app_label, **hints):
        return self.log if db == "other" and app_label == "cocobase_realtime" else None


class WithoutLog(OtherDatabaseRouter):
    log = False


class Replica(OtherDatabaseRouter):
    reads = "default"


@pytest.mark.parametrize(
    ("router", "ids"), [(OtherDatabaseRouter, []), (WithoutLog, ["E015"]), (Replica, ["W016"])]
)
def test_routers_and_the_log(settings, router, ids):
    settings.DEBUG = True
    settings.DATABASE_ROUTERS = [f"{__name__}.{router.__name__}"]
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": "app.Post"}}
    found = [m.id.removeprefix("cocobase_realtime.") for m in check_settings()]
    assert [id for id in found if id != "I080"] == ids


@pytest.mark.parametrize(
    ("hosts", "ids"),
    [
        (None, ["W053"]),
        (["redis://r"], ["W053"]),
        ([{"address": "redis://r"}], ["W053"]),
        ([{"address": "redis://r", "socket_timeout": None}], []),
    ],
)
def test_redis_py_8_and_the_core_layer(settings, monkeypatch, hosts, ids):
    settings.COCOBASE_REALTIME = {}
    monkeypatch.setattr("django_cocobase_realtime.checks.environment.version", lambda name: "8.1.0")
    backend = "channels_redis.core.RedisChannelLayer"
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend, "CONFIG": {"hosts": hosts}}}
    found = [m.id.removeprefix("cocobase_realtime.") for m in check_settings()]
    assert found == ids
    monkeypatch.setattr("django_cocobase_realtime.checks.environment.version", lambda name: "7.1.0")
    assert check_settings() == []


def test_settings_are_read_live(settings):
    settings.COCOBASE_REALTIME = {"LIMITS": {"subscriptions": 7}, "HEARTBEAT": 3}
    assert (conf.limits.subscriptions, conf.limits.rooms, conf.heartbeat) == (7, 50, 3)
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"news": "app.Post"}}
    assert (conf.limits.subscriptions, conf.heartbeat, conf.jwt) == (100, 25, None)
    assert [c.name for c in registry] == ["news"]
    assert registry.get("news").model_class is Post
    with pytest.raises(UnknownCollection):
        registry.get("posts")
    del settings.COCOBASE_REALTIME
    assert list(registry) == []


def test_a_class_and_a_setting_cannot_share_a_name(settings):
    settings.DEBUG = True

    @register("authors")
    class Authors(Collection):
        model = Author

    try:
        settings.COCOBASE_REALTIME = {"COLLECTIONS": {"authors": "app.Author"}}
        assert [m.id for m in check_settings()] == ["cocobase_realtime.E010"]
        settings.COCOBASE_REALTIME = {}
        assert [m.id for m in check_settings()] == ["cocobase_realtime.I080"]
        assert isinstance(registry.get("authors"), Authors)
        assert registry.get("authors").name == "authors"
    finally:
        registry.unregister("authors")

"""Settings of the test project, and of the server processes that tests start.

SQLite databases are files, because threads and other processes must see the data. With
TEST_DATABASE=postgres the default database is PostgreSQL. The REALTIME_TEST_* variables pass the
settings of the running test to its servers.
"""

import json
import os
import tempfile
from pathlib import Path

from tests.support import postgres

DEBUG = False
SECRET_KEY = "only-for-tests-" + "x" * 40
USE_TZ = True
TIME_ZONE = "Europe/Berlin"
ALLOWED_HOSTS = ["testserver", "localhost", "127.0.0.1"]
ROOT_URLCONF = "tests.urls"
ASGI_APPLICATION = "tests.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
STATIC_URL = "static/"
FORCE_SCRIPT_NAME = os.environ.get("REALTIME_TEST_SCRIPT_NAME") or None
MEDIA_ROOT = tempfile.gettempdir()

INSTALLED_APPS = [
    "daphne",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "rest_framework",
    "django_cocobase_realtime",
    "tests.app",
    "tests.capture_app",
    "tests.migrated_app",
    "tests.relations_app",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

_folder = Path(os.environ.get("REALTIME_TEST_FOLDER") or tempfile.mkdtemp(prefix="realtime-"))
_worker = os.environ.get("PYTEST_XDIST_WORKER", "main")


def _sqlite(name: str) -> dict[str, object]:
    path = str(_folder / f"{name}-{_worker}.sqlite3")
    options = {"timeout": 20, "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL"}
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": path,
        "OPTIONS": options,
        "TEST": {"NAME": path},
    }


DATABASES = {"default": _sqlite("default"), "other": _sqlite("other")}
if os.environ.get("TEST_DATABASE") == "postgres":
    DATABASES["default"] = postgres.database_settings()
    INSTALLED_APPS.append("tests.postgres_app")
if "REALTIME_TEST_DATABASES" in os.environ:  # in a server: the databases of the running test
    DATABASES = json.loads(os.environ["REALTIME_TEST_DATABASES"])

CHANNEL_LAYERS = json.loads(
    os.environ.get("REALTIME_TEST_LAYERS")
    or '{"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}'
)
COCOBASE_REALTIME = {
    "COLLECTIONS": {
        "posts": "app.Post",
        "messages": "app.Message",
        "authors": "app.Author",
        "comments": "app.Comment",
        "places": "app.Place",
        "restaurants": "app.Restaurant",
        "diners": "app.Diner",
        "everything": "app.Everything",
        "things": "app.UuidThing",
        "items": "app.Item",
    },
    "DRAIN": 0.2,  # so that servers with open connections stop soon
    "JWT": {"KEY": "a-shared-secret-of-more-than-32-bytes!"},
    **json.loads(os.environ.get("REALTIME_TEST_SETTINGS") or "{}"),
}

"""Settings of the demo: SQLite and the in-memory channel layer. Not for production.

Two environment variables change that: DATABASE_URL (``postgres://user:password@host/name`` or
``sqlite:///path``) and REDIS_URL (``redis://host:6379/0``).
"""

import os
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

BASE_DIR = Path(__file__).resolve().parent
VAR = BASE_DIR / "var"
VAR.mkdir(exist_ok=True)

DEBUG = True
# public, as are all passwords and tokens of this demo
SECRET_KEY = "for-this-demo-only-and-readable-by-anyone"
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]

INSTALLED_APPS = [
    "daphne",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "django_cocobase_realtime",
    "demo_project.board",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
ROOT_URLCONF = "demo_project.urls"
ASGI_APPLICATION = "demo_project.asgi.application"
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
STATIC_URL = "static/"
TIME_ZONE = "UTC"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"


def database(url: str) -> dict[str, object]:
    """Return an entry of DATABASES for a URL."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": unquote(parts.path[1:]),
            "OPTIONS": {
                "timeout": 20,
                "init_command": "PRAGMA journal_mode=WAL",
                # otherwise the admin fails if the load page writes between its read and its write
                "transaction_mode": "IMMEDIATE",
            },
        }
    if parts.scheme not in ("postgres", "postgresql"):
        raise ValueError("DATABASE_URL must begin with sqlite:// or postgres://")
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path[1:]),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parse_qs(parts.query).get("host", [parts.hostname or ""])[0],
        "PORT": str(parts.port or ""),
    }


DATABASES = {"default": database(os.environ.get("DATABASE_URL") or f"sqlite:///{VAR}/demo.sqlite3")}

CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
if os.environ.get("REDIS_URL"):
    # the default of redis-py 8, 5 s, equals the time for which the layer waits for a message
    host = {"address": os.environ["REDIS_URL"], "socket_timeout": None}
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {"hosts": [host]},
        }
    }

# parcels and the rooms are declared in board/realtime.py
COCOBASE_REALTIME = {
    # triggers of the database write the log, so that changes by other programs are seen
    "CAPTURE": "triggers",
    "COLLECTIONS": {
        "posts": "board.Post",
        "tasks": {
            "model": "board.Task",
            # the name is a value of a related row
            "fields": ["title", "column", "priority", "assignee.username", "moved_at"],
            "filters": ["title", "column", "assignee"],
            # the order of a column; without an index for it, `migrate` prints a warning
            "orders": ["-priority,-moved_at"],
        },
        "memberships": {"model": "board.Membership", "fields": ["team", "user"]},
        "counters": {
            "model": "board.Counter",
            "fields": ["name", "number"],
            "filters": ["name"],
        },
    },
    "JWT": {"KEY": SECRET_KEY},
    "MEMBER": "demo_project.board.users.member",
    # seconds after which a member who closed the window is reported as gone
    "PRESENCE": {"GRACE": 3},
}

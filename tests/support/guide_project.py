"""A project with the models of a guide, in a folder of its own, and its server."""

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import time

import jwt
import psycopg

from tests.support import postgres
from tests.support.blocks import ROOT
from tests.support.servers import Server

SECRET = "a secret of this test, long enough for HS256"
SETTINGS = """
SECRET_KEY = {secret!r}
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = [
    "daphne", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.staticfiles",
    "channels", "django_cocobase_realtime", "helpdesk",
]
STATIC_URL = "static/"
MEDIA_URL = "media/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "mysite.urls"
ASGI_APPLICATION = "mysite.asgi.application"
DATABASES = {{"default": {database!r}}}
CHANNEL_LAYERS = {{"default": {{"BACKEND": "channels.layers.InMemoryChannelLayer"}}}}
COCOBASE_REALTIME = {{"CAPTURE": {capture!r}, "JWT": {{"KEY": SECRET_KEY}}}}
"""
ASGI = """
from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application
http = get_asgi_application()
from django_cocobase_realtime.routing import realtime_application
application = ProtocolTypeRouter({"http": http, "websocket": realtime_application()})
"""
PREPARE = """
import django
from django.core.management import call_command
django.setup()
call_command("makemigrations", "helpdesk")
call_command("migrate")
call_command("check", databases=["default"])
"""


class GuideProject:
    """The project of a guide, whose app has the name ``helpdesk``."""

    def __init__(self, folder, capture, models, realtime):
        self.folder = folder
        self.env = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "mysite.settings",
            "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}",
            "PYTHONWARNINGS": "default",
        }
        database = {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(folder / "db.sqlite3"),
            "OPTIONS": {"timeout": 20},
        }
        if os.environ.get("TEST_DATABASE") == "postgres":
            self.database = f"helpdesk_{capture}_{os.getpid()}"
            _execute(f"CREATE DATABASE {self.database}")
            database = {**postgres.database_settings(), "NAME": self.database}
        settings = SETTINGS.format(database=database, capture=capture, secret=SECRET)
        self.write("mysite/settings.py", settings)
        self.write("mysite/urls.py", "urlpatterns = []\n")
        self.write("mysite/asgi.py", ASGI)
        self.write("helpdesk/models.py", models)
        self.write("helpdesk/realtime.py", realtime)
        output = self.run("-c", PREPARE)
        assert not re.search("WARNING|ERROR", output), output
        command = ["-m", "django", "runserver", "--noreload", "{port}"]
        self.server = Server([sys.executable, *command], self.env)
        self.url = f"ws://127.0.0.1:{self.server.port}/realtime"
        self.token = jwt.encode({"sub": "1", "exp": time.time() + 600}, SECRET, "HS256")

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        (path.parent / "__init__.py").touch()

    def run(self, *command):
        """Execute a command in the folder of the project, and return its output."""
        completed = subprocess.run(
            [sys.executable, *command],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert completed.returncode == 0, completed.stdout
        return completed.stdout

    @contextlib.asynccontextmanager
    async def program(self, *command):
        """Start a program in another process, which ends with the block."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-u",
            *command,
            cwd=self.folder,
            env=self.env,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def close(self):
        self.server.stop()
        if os.environ.get("TEST_DATABASE") == "postgres":
            _execute(f"DROP DATABASE {self.database} WITH (FORCE)")


def _execute(statement):
    database = postgres.database_settings()
    with psycopg.connect(
        dbname=database["NAME"], user=database["USER"], host=database["HOST"], autocommit=True
    ) as connection:
        connection.execute(statement)


async def line_of(process):
    async with asyncio.timeout(20):
        return (await process.stdout.readline()).decode().strip()

"""The guide to multi-tenant permissions, in a project with its models, a server and a client."""

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import textwrap
import time

import jwt
import psycopg
import pytest

from django_cocobase_realtime.client import Realtime
from tests.support import postgres
from tests.support.blocks import ROOT, code_blocks
from tests.support.servers import Server

pytestmark = pytest.mark.server
PAGE = ROOT / "docs" / "how-to" / "multi-tenant.md"
SECRET = "a secret of this test, long enough for HS256"
SETTINGS = """
SECRET_KEY = {secret!r}
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = [
    "daphne", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.staticfiles",
    "channels", "django_cocobase_realtime", "helpdesk",
]
STATIC_URL = "static/"
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
# creates the rows, and then executes what it reads, block by block
WRITER = """
import sys
import django
django.setup()
from django.contrib.auth.models import User
from helpdesk.models import Membership, Organization, Project, Ticket
ada = User.objects.create(pk=1, username="ada")
acme, other = (Organization.objects.create(name=name) for name in ("Acme", "Other"))
for name, organization in {"Website": acme, "Office": acme, "Garden": other}.items():
    project = Project.objects.create(name=name, organization=organization)
    Ticket.objects.create(title=f"Ticket of {name}", project=project)
print("ready", flush=True)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


class Site:
    """A project with the guide's models and permissions."""

    def __init__(self, folder, capture):
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
        models, tickets, *methods, changes, self.client = code_blocks(PAGE, "python")[:-1]
        by_path, by_role, by_path_or_assignee = methods
        self.changes = changes.splitlines()
        self.write("helpdesk/models.py", models)
        declared = [
            tickets,
            _variant(tickets, "by_path", by_path),
            _variant(tickets, "by_role", by_role),
            _variant(tickets, "by_path_or_assignee", by_path_or_assignee),
            re.sub(r"^ *depends_on = .*\n", "", _variant(tickets, "undeclared"), flags=re.M),
        ]
        self.write("helpdesk/realtime.py", "\n\n".join(declared))
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


def _variant(source, name, method=None):
    """Return the declaration of the collection with another name, and another ``visible_to``."""
    head, old = source.split("    def visible_to", 1)
    head = head.replace('@register("tickets")', f'@register("{name}")')
    return head + (
        f"    def visible_to{old}" if method is None else textwrap.indent(method, "    ")
    )


@pytest.fixture(params=["signals", "triggers"])
def site(request, tmp_path):
    site = Site(tmp_path, request.param)
    try:
        site.server.start()
        yield site
    finally:
        site.close()


async def line_of(process):
    async with asyncio.timeout(20):
        return (await process.stdout.readline()).decode().strip()


async def wait_for(titles, tickets):
    """Wait until a live list has the tickets with these titles."""
    async with asyncio.timeout(20):
        while [ticket.data["title"] for ticket in tickets.documents] != titles:
            await asyncio.sleep(0.02)


async def test_lists_of_the_guide_follow_memberships(site):
    site.client = site.client.replace("wss://example.com/realtime", site.url)
    site.client = site.client.replace('token="…"', f'token="{site.token}"')
    errors = []
    async with contextlib.AsyncExitStack() as stack:
        writer = await stack.enter_async_context(site.program("-c", WRITER))
        assert await line_of(writer) == "ready"

        async def execute(statement):
            writer.stdin.write(f"{statement}\n".encode())
            assert await line_of(writer) == "done"

        program = await stack.enter_async_context(site.program("-c", site.client))
        statuses = []
        db = Realtime(
            site.url, token=site.token, on_status=lambda status, detail: statuses.append(status)
        )
        await stack.enter_async_context(db)
        by_path, by_role, by_path_or_assignee = lists = [
            db.live(name, order="title") for name in ("by_path", "by_role", "by_path_or_assignee")
        ]
        for tickets in lists:
            await tickets.ready()
        begin, move, end = site.changes

        await execute(begin)
        both = ["Ticket of Office", "Ticket of Website"]
        assert await line_of(program) == repr(both)
        await wait_for(both, by_path)
        await wait_for(both, by_path_or_assignee)
        await wait_for([], by_role)
        await execute("Membership.objects.update(role='admin')")
        await wait_for(both, by_role)

        await execute(move)
        assert await line_of(program) == repr(["Ticket of Office"])
        for tickets in lists:
            await wait_for(["Ticket of Office"], tickets)
        await execute("Ticket.objects.filter(title='Ticket of Garden').update(assignee=ada)")
        await wait_for(["Ticket of Garden", "Ticket of Office"], by_path_or_assignee)

        await execute(end)
        assert await line_of(program) == "[]"
        await wait_for([], by_path)
        await wait_for([], by_role)
        await wait_for(["Ticket of Garden"], by_path_or_assignee)

        undeclared = db.live("undeclared", on_error=errors.append)
        async with asyncio.timeout(20):
            while not errors:
                await asyncio.sleep(0.02)
        undeclared.stop()
        assert [error.code for error in errors] == ["internal_error"]
        assert statuses.count("connecting") == 1  # there was no other connection
    (message,) = code_blocks(PAGE, "text")
    message = message.strip().replace("'tickets'", "'undeclared'")
    log = site.server.log.read_text()
    assert f"ImproperlyConfigured: {message}" in log
    (names,) = re.findall(r"depends_on = \[(.*)\]", message)
    with_line = re.search(r"depends_on = \((.*)\)", PAGE.read_text())[1]
    assert sorted(with_line.replace('"', "'").split(", ")) == names.split(", ")

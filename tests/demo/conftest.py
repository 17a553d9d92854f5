"""Fixtures for the demo: runserver with SQLite and the in-memory layer, and Chromium."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.chromium import ARGUMENTS, CHROMIUM, require_chromium
from tests.support.servers import ROOT, Server

PICTURES = os.environ.get("DEMO_PICTURES")


class Demo(Server):
    def __init__(self, folder: Path, *, cards: int = 0) -> None:
        self.database = folder / "demo.sqlite3"
        env = {
            "DJANGO_SETTINGS_MODULE": "demo_project.settings",
            "DATABASE_URL": f"sqlite:///{self.database}",
            "PYTHONUNBUFFERED": "1",
        }
        manage = [sys.executable, "manage.py"]
        super().__init__([*manage, "runserver", "--noreload", "127.0.0.1:{port}"], env)
        for command in (["migrate", "-v0"], ["seed", "--cards", str(cards)], ["seed"]):
            subprocess.run([*manage, *command], cwd=ROOT, env=self.env, check=True)

    def shell(self, code: str) -> None:
        """Run code in another process, with the command that the page shows."""
        command = [sys.executable, "manage.py", "shell", "-c", code]
        subprocess.run(command, cwd=ROOT, env=self.env, check=True, capture_output=True)

    def execute(self, sql: str, *values: object) -> list[tuple]:
        """Execute SQL over a connection that does not know Django. Return the rows."""
        with closing(sqlite3.connect(self.database, timeout=20)) as connection, connection:
            return connection.execute(sql, values).fetchall()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


@pytest.fixture(scope="session")
def _demo(tmp_path_factory):
    require_chromium()
    server = Demo(tmp_path_factory.mktemp("demo"))
    yield server
    server.stop()


@pytest.fixture
def demo(_demo):
    """Return the running demo. It is seeded once, and tests share its data."""
    if not _demo.is_ready():
        _demo.start()
    return _demo


class Windows:
    """Open windows and collect their errors."""

    def __init__(self, browser, demo) -> None:
        self.browser = browser
        self.demo = demo
        self.errors: list[str] = []

    async def open(self, path="", *, beside=None, auto_moves=False, **options):
        """Open a page for a new visitor, or for the visitor of the window ``beside``.

        The server moves a card when a board is opened. Tests share the rows and move cards
        themselves, so that request is answered here unless ``auto_moves``.
        """
        context = beside.context if beside else await self.browser.new_context(**options)
        page = await context.new_page()
        if not auto_moves:
            await page.route("**/api/auto-moves", lambda route: route.fulfill(json={}))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._collect_console_error)
        page.on("request", self._collect_foreign_request)
        await page.goto(self.demo.url + path)
        if not path.startswith("files/"):  # those pages have no connection
            await page.locator(".dot[data-state=live]").first.wait_for()
        if path == "":
            await page.locator("body[data-ready]").wait_for()
        return page

    def _collect_console_error(self, message) -> None:
        # tests cut the connection on purpose
        lost = "WebSocket" in message.text or "net::ERR_" in message.text
        if message.type == "error" and not lost:
            self.errors.append(message.text)

    def _collect_foreign_request(self, request) -> None:
        if not request.url.startswith((self.demo.url, "data:")):
            self.errors.append(f"requested {request.url}")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def _browser():
    require_chromium()
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def windows(_browser, demo):
    windows = Windows(_browser, demo)
    yield windows
    for context in _browser.contexts:
        await context.close()
    assert windows.errors == []


async def picture(page, name):
    if PICTURES:
        await page.screenshot(path=f"{PICTURES}/{name}.png", full_page=True)

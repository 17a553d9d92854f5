"""The demo as its visitors have it: runserver, SQLite, the in-memory layer; and a real Chromium."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.chromium import ARGUMENTS, CHROMIUM, require_chromium
from tests.support.servers import ROOT, Server

PICTURES = os.environ.get("DEMO_PICTURES")


class Demo(Server):
    def __init__(self, folder: Path) -> None:
        env = {
            "DJANGO_SETTINGS_MODULE": "demo_project.settings",
            "DATABASE_URL": f"sqlite:///{folder}/demo.sqlite3",
            "PYTHONUNBUFFERED": "1",
        }
        manage = [sys.executable, "manage.py"]
        super().__init__([*manage, "runserver", "--noreload", "127.0.0.1:{port}"], env)
        for command in (["migrate", "-v0"], ["seed"], ["seed"]):
            subprocess.run([*manage, *command], cwd=ROOT, env=self.env, check=True)

    def shell(self, code: str) -> None:
        """Run code in a process of its own, as the page tells people to do."""
        command = [sys.executable, "manage.py", "shell", "-c", code]
        subprocess.run(command, cwd=ROOT, env=self.env, check=True, capture_output=True)

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
    """Seeded once; what a test leaves behind, the next one finds."""
    if not _demo.is_ready():
        _demo.start()
    return _demo


class Windows:
    """Opens windows, and minds what goes wrong in them."""

    def __init__(self, browser, demo) -> None:
        self.browser = browser
        self.demo = demo
        self.complaints: list[str] = []

    async def open(self, path="", *, beside=None, **options):
        """A window on a page, of a visitor of its own, or of the one who has ``beside``."""
        context = beside.context if beside else await self.browser.new_context(**options)
        page = await context.new_page()
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._heard)
        page.on("request", self._asked)
        await page.goto(self.demo.url + path)
        await page.locator(".dot[data-state=live]").first.wait_for()
        return page

    def _heard(self, said) -> None:
        # that there is no connection is what these tests are about
        lost = "WebSocket" in said.text or "net::ERR_" in said.text
        if said.type == "error" and not lost:
            self.complaints.append(said.text)

    def _asked(self, request) -> None:
        if not request.url.startswith((self.demo.url, "data:")):
            self.complaints.append(f"asked for {request.url}")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def _browser(_demo):
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
    assert windows.complaints == []


async def picture(page, name):
    if PICTURES:
        await page.screenshot(path=f"{PICTURES}/{name}.png", full_page=True)

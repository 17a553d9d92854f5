"""The demo in a real Chromium: two windows, the admin, a server that dies and comes back."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import ROOT, Server

pytestmark = pytest.mark.browser
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
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
        for command in (["migrate", "-v0"], ["seed"]):
            subprocess.run([*manage, *command], cwd=ROOT, env=self.env, check=True)

    def shell(self, code: str) -> None:
        """Run code in a process of its own, as somebody at a terminal would."""
        code = f"from demo_project.board.models import Task; {code}"
        command = [sys.executable, "manage.py", "shell", "-c", code]
        subprocess.run(command, cwd=ROOT, env=self.env, check=True, capture_output=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


@pytest.fixture
def demo(tmp_path):
    if CHROMIUM is None:
        assert not os.environ.get("REQUIRE_BROWSER"), "CI needs Chromium."
        pytest.skip("No Chromium on this machine to look at the demo with.")
    server = Demo(tmp_path)
    server.start()
    yield server
    server.stop()


async def open_page(browser, demo, **options):
    page = await (await browser.new_context(**options)).new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    await page.goto(demo.url)
    await page.locator("#dot[data-state=live]").wait_for()
    await page.locator(".card").first.wait_for()
    return page


async def picture(page, name):
    if PICTURES:
        await page.screenshot(path=f"{PICTURES}/{name}.png", full_page=True)


async def test_two_windows(demo):
    from playwright.async_api import async_playwright, expect

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        one = await open_page(browser, demo, viewport={"width": 1280, "height": 900})
        two = await open_page(browser, demo, viewport={"width": 390, "height": 844})

        # a card is added, moved and deleted in one window, and seen in the other
        await one.fill("#task-title", "Ring the bell")
        await one.press("#task-title", "Enter")
        card = two.locator("[data-cards=todo] .card", has_text="Ring the bell")
        await expect(card).to_be_visible()
        await two.get_by_role("button", name="Move right: Ring the bell").click()
        await expect(one.locator("[data-cards=doing]")).to_contain_text("Ring the bell")
        await expect(one.locator("[data-count=doing]")).to_have_text("3")

        # what people say is text, never markup
        await one.fill("#words", "Hello <b>everyone</b>!")
        await one.press("#words", "Enter")
        await expect(two.locator("#talk")).to_contain_text("Hello <b>everyone</b>!")
        await two.fill("#words", "Hello back")
        await two.press("#words", "Enter")
        await expect(one.locator("#talk")).to_contain_text("Hello back")

        # a filter decides what a window hears of
        await two.locator("#only-published").uncheck()
        await expect(two.locator("#posts li")).to_have_count(3)
        await expect(one.locator("#posts li")).to_have_count(2)
        await two.get_by_role("button", name="Publish: Notes for the next meeting").click()
        await expect(one.locator("#posts li")).to_have_count(3)
        await expect(one.locator("#log")).to_contain_text('"event":"updated"')
        await two.get_by_role("button", name="Withdraw: The ferry runs again").click()
        await expect(one.locator("#posts li")).to_have_count(2)
        await expect(two.locator("#posts li")).to_have_count(3)

        # the admin
        admin = await (await browser.new_context()).new_page()
        await admin.goto(demo.url + "admin/board/task/")
        await admin.fill("#id_username", "admin")
        await admin.fill("#id_password", "admin")
        await admin.press("#id_password", "Enter")
        await admin.get_by_role("link", name="Paint the small boat").click()
        await admin.fill("#id_title", "Paint the large boat")
        await admin.press("#id_title", "Enter")
        await expect(one.locator("[data-cards=done]")).to_contain_text("Paint the large boat")
        await picture(one, "desk")
        await picture(two, "phone")

        # another process, with no layer between: the log has it
        demo.shell("Task.objects.create(title='From a shell')")
        await expect(one.locator("[data-cards=todo]")).to_contain_text("From a shell", timeout=2500)

        # the server dies; what changed meanwhile is there when it is back
        demo.kill()
        await expect(one.locator("#state")).to_contain_text(re.compile("lost|connecting"))
        demo.shell("Task.objects.filter(title='From a shell').delete()")
        demo.shell("Task.objects.create(title='While you were away')")
        demo.start()
        await expect(one.locator("[data-cards=todo]")).to_contain_text(
            "While you were away", timeout=20_000
        )
        await expect(one.locator("#board")).not_to_contain_text("From a shell")
        await expect(one.locator("#log")).to_contain_text('"resumed":true')
        await expect(one.locator("#dot")).to_have_attribute("data-state", "live", timeout=20_000)
        await expect(two.locator("#dot")).to_have_attribute("data-state", "live", timeout=20_000)
        await two.get_by_role("button", name="Delete: Ring the bell").click()
        await expect(one.locator("#board")).not_to_contain_text("Ring the bell")
        assert one.errors == two.errors == []

        dark = await open_page(
            browser, demo, color_scheme="dark", viewport={"width": 1280, "height": 900}
        )
        await picture(dark, "dark")
        await browser.close()

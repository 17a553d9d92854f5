"""The tutorial, followed step by step in an empty folder."""

import os
import re
import subprocess
import sys

import pytest

from tests.support.blocks import ROOT, code_blocks
from tests.support.chromium import ARGUMENTS, CHROMIUM, require_chromium
from tests.support.servers import Server

pytestmark = [pytest.mark.server, pytest.mark.browser]
TUTORIAL = ROOT / "docs" / "tutorial.md"
APPS = "INSTALLED_APPS = [\n"


def write_project(folder, env):
    """Create the project of the tutorial, and return a function that executes its commands."""

    def run(*command):
        completed = subprocess.run(
            [sys.executable, *command],
            cwd=folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert completed.returncode == 0, completed.stdout
        return completed.stdout

    run("-m", "django", "startproject", "mysite", ".")
    run("manage.py", "startapp", "blog")
    models, admin, settings, asgi, urls = code_blocks(TUTORIAL, "python")
    (page,) = code_blocks(TUTORIAL, "html")
    (folder / "blog" / "templates").mkdir()
    for name, text in {
        "blog/models.py": models,
        "blog/admin.py": admin,
        "mysite/asgi.py": asgi,
        "mysite/urls.py": urls,
        "blog/templates/live.html": page,
    }.items():
        (folder / name).write_text(text)
    file = folder / "mysite" / "settings.py"
    head, rest = file.read_text().split(APPS)
    default_apps, tail = rest.split("]", 1)
    last = '    "channels", "django_cocobase_realtime", "blog",\n'
    file.write_text(f'{head}{APPS}    "daphne",\n{default_apps}{last}]{tail}\n{settings}')
    return run


def follow_tutorial(folder, env):
    """Execute the steps of the tutorial and return the output of its commands."""
    run = write_project(folder, env)
    output = run("manage.py", "makemigrations", "blog")
    output += run("manage.py", "migrate")
    output += run("manage.py", "createsuperuser", "--noinput", "--username=ada", "--email=a@b.org")
    return output + run("manage.py", "check")


async def test_tutorial_produces_a_live_page(tmp_path):
    require_chromium()
    from playwright.async_api import async_playwright, expect

    env = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "mysite.settings",
        "DJANGO_SUPERUSER_PASSWORD": "secret",
        "PYTHONWARNINGS": "default",
    }
    output = follow_tutorial(tmp_path, env)
    assert "arning" not in output
    # no check has a hint, but for the one that names writes that are not seen
    assert re.findall(r"\(\w+\.[A-Z]\d{3}\)", output) == ["(cocobase_realtime.I082)"]
    assert output.count("HINT") == 1
    manage = [sys.executable, str(tmp_path / "manage.py")]
    server = Server([*manage, "runserver", "--noreload", "{port}"], env)
    server.start()
    try:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            context = await browser.new_context()
            admin, live = await context.new_page(), await context.new_page()
            url = f"http://localhost:{server.port}/"
            await admin.goto(url + "admin/")
            await admin.fill("[name=username]", "ada")
            await admin.fill("[name=password]", "secret")
            await admin.click("[type=submit]")
            await admin.locator("#user-tools").wait_for()
            await live.goto(url)
            await expect(live.locator("#count")).to_have_text("0")
            await admin.goto(url + "admin/blog/post/add/")
            await admin.fill("[name=title]", "Hello")
            await admin.fill("[name=status]", "published")
            await admin.click("[name=_continue]")
            await expect(live.locator("#posts li")).to_have_text(["Hello"])
            await expect(live.locator("#count")).to_have_text("1")
            server.stop()
            server.start()
            await admin.fill("[name=title]", "Hello again")
            await admin.click("[name=_continue]")
            await expect(live.locator("#posts li")).to_have_text(["Hello again"], timeout=20_000)
            await admin.fill("[name=status]", "draft")
            await admin.click("[name=_continue]")
            await expect(live.locator("#posts li")).to_have_count(0)
            await expect(live.locator("#count")).to_have_text("0")
            await browser.close()
    finally:
        server.stop()
    assert "Traceback" not in server.log.read_text()

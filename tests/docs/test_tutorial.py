"""The tutorial, followed to the letter: from an empty folder to a page that changes by itself."""

import os
import subprocess
import sys

import pytest

from tests.support.blocks import ROOT, code_blocks
from tests.support.chromium import ARGUMENTS, CHROMIUM, require_chromium
from tests.support.servers import Server

pytestmark = [pytest.mark.server, pytest.mark.browser]
TUTORIAL = ROOT / "docs" / "tutorial.md"
APPS = "INSTALLED_APPS = [\n"


def follow(folder, env):
    """What the reader types, and what the commands said."""

    def run(*command):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

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
    own, tail = rest.split("]", 1)
    last = '    "channels", "django_cocobase_realtime", "blog",\n'
    file.write_text(f'{head}{APPS}    "daphne",\n{own}{last}]{tail}\n{settings}')
    said = run("manage.py", "makemigrations", "blog")
    said += run("manage.py", "migrate")
    said += run("manage.py", "createsuperuser", "--noinput", "--username=ada", "--email=a@b.org")
    return said + run("manage.py", "check")


async def test_the_tutorial(tmp_path):
    require_chromium()
    from playwright.async_api import async_playwright, expect

    env = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "mysite.settings",
        "DJANGO_SUPERUSER_PASSWORD": "secret",
        "PYTHONWARNINGS": "default",
    }
    said = follow(tmp_path, env)
    assert "arning" not in said
    assert "HINT" not in said  # no check has anything to say
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
            await admin.goto(url + "admin/blog/post/add/")
            await admin.fill("[name=title]", "Hello")
            await admin.fill("[name=status]", "published")
            await admin.click("[name=_continue]")
            await expect(live.locator("#posts li")).to_have_text(["Hello"])
            server.stop()
            server.start()
            await admin.fill("[name=title]", "Hello again")
            await admin.click("[name=_continue]")
            await expect(live.locator("#posts li")).to_have_text(["Hello again"], timeout=20_000)
            await admin.fill("[name=status]", "draft")
            await admin.click("[name=_continue]")
            await expect(live.locator("#posts li")).to_have_count(0)
            await browser.close()
    finally:
        server.stop()
    assert "Traceback" not in server.log.read_text()

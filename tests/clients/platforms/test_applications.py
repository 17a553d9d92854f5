"""Pages of Next.js, Nuxt and SvelteKit: rendered on the server, hydrated and live in Chromium.

They are part of `make test-long` only, since installing and building the applications takes
minutes.
"""

import asyncio
import time

import pytest

from tests.app.models import Post
from tests.clients.platforms.applications import (
    DOCUMENTED_URL,
    FRAMEWORKS,
    Application,
    build,
)
from tests.clients.platforms.components import GUIDE
from tests.support.chromium import ARGUMENTS, CHROMIUM, require_chromium

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

RENDERS = 200
# Keeps the list that the server has rendered, before any script of the page runs.
OBSERVE = """
window.rendered = null;
new MutationObserver(() => {
  window.rendered ??= document.querySelector("ul");
}).observe(document, { childList: true, subtree: true });
"""


def measure_at_rest(application):
    """Return a report when the connections of earlier requests are closed."""
    deadline = time.monotonic() + 20
    while "TCPSocketWrap" in (report := application.measure())["resources"]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.5)
    return report


def render_often(application):
    """Render pages, and compare what the server has opened before and after."""
    for _ in range(RENDERS):
        html = application.render()
    before = measure_at_rest(application)
    for _ in range(RENDERS):
        assert application.render()
    after = measure_at_rest(application)
    assert after["resources"] == before["resources"]
    assert after["connections"] == 0
    return html


@pytest.fixture
def cookie(client, user):
    client.force_login(user)
    return {"name": "sessionid", "value": client.cookies["sessionid"].value}


def test_guide_names_the_address_that_the_applications_use():
    assert DOCUMENTED_URL in GUIDE.read_text()


@pytest.mark.parametrize("name", FRAMEWORKS)
async def test_page_is_rendered_without_a_connection_and_hydrated(serve, cookie, tmp_path, name):
    from playwright.async_api import async_playwright

    require_chromium()
    server = await asyncio.to_thread(serve, "uvicorn")
    await asyncio.to_thread(build, name, tmp_path, server.port)
    await Post.objects.acreate(title="first", status="published")
    application = Application(name, tmp_path)
    try:
        await asyncio.to_thread(application.start)
        html = await asyncio.to_thread(render_often, application)
        assert "<ul>" in html
        assert "<li>" not in html
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            context = await browser.new_context()
            await context.add_cookies([{**cookie, "domain": "127.0.0.1", "path": "/"}])
            await context.add_init_script(OBSERVE)
            page = await context.new_page()
            problems = []
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on(
                "console",
                lambda message: (
                    problems.append(message.text)
                    if message.type in ("warning", "error")
                    and "favicon" not in message.location["url"]
                    else None
                ),
            )
            await page.goto(application.url)
            await page.wait_for_function("document.querySelector('ul').innerText === 'first'")
            assert await page.evaluate("document.querySelector('ul') === rendered")
            await Post.objects.acreate(title="another", status="published")
            shown = "document.querySelector('ul').innerText === 'another\\nfirst'"
            await page.wait_for_function(shown)
            assert problems == []
            await browser.close()
        assert (await asyncio.to_thread(application.measure))["connections"] == 0
    finally:
        await asyncio.to_thread(application.stop)

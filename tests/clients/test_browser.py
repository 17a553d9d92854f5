"""The JavaScript client in Chromium: the scenarios, network changes, suspended pages."""

import asyncio
import os
import signal
import traceback
from contextlib import asynccontextmanager

import pytest

from tests.app.models import Post
from tests.clients.drivers import BrowserDriver
from tests.clients.scenarios import JAVASCRIPT_SCENARIOS
from tests.clients.scripted_server import ScriptedServer
from tests.support.chromium import ARGUMENTS, CHROMIUM, require_chromium

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
# tests that share the scenarios, and run at the same time
PARTS = 3
# pages of each of them: a scenario spends most of its time waiting
PAGES = 4


@asynccontextmanager
async def chromium():
    require_chromium()
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest.mark.parametrize("part", range(PARTS))
async def test_conformance_scenarios(part):
    names = sorted(JAVASCRIPT_SCENARIOS)[part::PARTS]
    failed = {}

    async def run(browser):
        # one context per page: pages of one context share throttled timers
        page = await (await browser.new_context()).new_page()
        while names:
            name = names.pop()
            try:
                async with ScriptedServer() as server:
                    await page.goto(f"http://127.0.0.1:{server.port}/")
                    async with BrowserDriver(page) as client:
                        await JAVASCRIPT_SCENARIOS[name](server, client)
            except Exception:
                failed[name] = traceback.format_exc()

    async with chromium() as browser:
        await asyncio.gather(*(run(browser) for _ in range(PAGES)))
    assert not failed, "\n".join(failed.values())


@asynccontextmanager
async def live_page(browser, server, cookie):
    context = await browser.new_context()
    await context.add_cookies(
        [{"name": "sessionid", "value": cookie, "domain": "127.0.0.1", "path": "/"}]
    )
    page = await context.new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))

    def collect_policy_error(message):
        if "Security Policy" in message.text:
            page.errors.append(message.text)

    page.on("console", collect_policy_error)
    await page.goto(f"http://127.0.0.1:{server.port}/live")
    yield page
    assert page.errors == []
    await context.close()


async def publish(title):
    await Post.objects.acreate(title=title, status="published")


async def test_page_with_template_tag_resumes_after_server_restart(serve, cookie):
    from playwright.async_api import expect

    server = await asyncio.to_thread(serve, "daphne")
    await publish("one")
    async with chromium() as browser, live_page(browser, server, cookie) as page:
        posts, body = page.locator("#posts"), page.locator("body")
        await expect(posts).to_have_text("one")
        await expect(body).to_have_attribute("data-script", "object")
        assert await page.evaluate("window.realtime.user.name") == "ada"
        await publish("two")
        await expect(posts).to_have_text("two, one")
        await asyncio.to_thread(server.kill)
        await expect(body).to_have_attribute("data-status", "waiting")
        await expect(posts).to_have_text("two, one")
        await publish("three")
        await asyncio.to_thread(server.start)
        await expect(posts).to_have_text("three, two, one", timeout=40_000)
        await expect(body).to_have_attribute("data-status", "live")


async def test_client_reconnects_when_browser_is_online_again(serve, cookie):
    from playwright.async_api import expect

    server = await asyncio.to_thread(serve, "uvicorn")
    async with chromium() as browser, live_page(browser, server, cookie) as page:
        posts, body = page.locator("#posts"), page.locator("body")
        await publish("one")
        await expect(posts).to_have_text("one")
        # delays so long that only the browser's "online" event ends them
        await page.evaluate("Math.random = () => 100")
        await page.context.set_offline(True)
        await asyncio.to_thread(server.kill)
        await expect(body).to_have_attribute("data-status", "waiting")
        await asyncio.to_thread(server.start)
        await publish("two")
        await asyncio.sleep(2)
        assert await body.get_attribute("data-status") == "waiting"
        await page.context.set_offline(False)
        await expect(posts).to_have_text("two, one", timeout=10_000)


async def test_client_resumes_after_computer_slept(serve, cookie):
    from playwright.async_api import expect

    server = await asyncio.to_thread(serve, "daphne")
    async with chromium() as browser:
        system = await browser.new_browser_cdp_session()
        before = await renderers(system)
        async with live_page(browser, server, cookie) as page:
            posts, body = page.locator("#posts"), page.locator("body")
            await publish("one")
            await expect(posts).to_have_text("one")
            await page.evaluate("window.ticks = 0; setInterval(() => window.ticks++, 50)")
            ticks = await page.evaluate("window.ticks")
            suspended = await renderers(system) - before
            for pid in suspended:
                os.kill(pid, signal.SIGSTOP)
            try:
                await asyncio.to_thread(server.kill)
                await publish("two")
                await asyncio.to_thread(server.start)
                await asyncio.sleep(6)
            finally:
                for pid in suspended:
                    os.kill(pid, signal.SIGCONT)
            assert await page.evaluate("window.ticks") - ticks < 60  # no timer ran
            await expect(posts).to_have_text("two, one", timeout=10_000)
            await expect(body).to_have_attribute("data-status", "live")
            await publish("three")
            await expect(posts).to_have_text("three, two, one")


async def renderers(system):
    """Return the process ids of the browser's pages."""
    info = await system.send("SystemInfo.getProcessInfo")
    return {process["id"] for process in info["processInfo"] if process["type"] == "renderer"}

"""Components of React, Vue and Svelte in Chromium, against a real server."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from tests.app.models import Post
from tests.clients.platforms.components import FRAMEWORKS, build, render
from tests.support.chromium import ARGUMENTS, CHROMIUM, require_chromium

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

# Counts what the client sends and what happens to its connection.
OBSERVE = """() => {
  document.body.innerHTML = '<div id="one"></div><div id="two"></div>';
  window.counts = { subscribed: 0, unsubscribed: 0, joined: 0, left: 0, error: 0 };
  window.statuses = [];
  window.errors = [];
  window.problems = [];
  app.db.on("status", ({ status }) => statuses.push(status));
  app.db.on("error", ({ code }) => problems.push(code));
  app.db.on("frame", ({ direction, frame }) => {
    if (direction === "in" && frame.type in counts) counts[frame.type]++;
    if (frame.type === "error") errors.push(frame.code);
  });
}"""
HYDRATE = """(html) => {
  document.getElementById("one").innerHTML = html;
  window.end = app.hydrate(document.getElementById("one"), ({ message }) => problems.push(message));
}"""
# Mounts and unmounts 30 components, each with its own list, some times in a second.
MOUNT_MANY = """async (rounds) => {
  for (let round = 0; round < rounds; round++) {
    const target = document.createElement("div");
    const statuses = Array.from({ length: 30 }, (_, index) => `status-${round}-${index}`);
    const end = app.mount(target, statuses);
    await new Promise((resolve) => setTimeout(resolve, 80));
    end();
  }
}"""


@asynccontextmanager
async def open_page(server, cookie, folder):
    """Open a page with the compiled components, and fail if it logs a warning or an error."""
    require_chromium()
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        context = await browser.new_context()
        await context.add_cookies(
            [{"name": "sessionid", "value": cookie, "domain": "127.0.0.1", "path": "/"}]
        )
        page = await context.new_page()
        problems = []

        def collect_message(message):
            if message.type in ("warning", "error") and "favicon" not in message.location["url"]:
                problems.append(message.text)

        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", collect_message)
        await page.goto(f"http://127.0.0.1:{server.port}/realtime/health")
        await page.add_script_tag(content=(folder / "browser.js").read_text())
        await page.evaluate(OBSERVE)
        yield page
        assert problems == []
        assert await page.evaluate("problems") == []
        await browser.close()


async def publish(title):
    await Post.objects.acreate(title=title, status="published")


async def wait_for(page, condition):
    """Wait until a condition is true in the page; otherwise fail with what happened there."""
    from playwright.async_api import Error

    try:
        await page.wait_for_function(condition, timeout=30_000)
    except Error:
        observed = await page.evaluate(
            "({ counts, statuses, problems, errors, one: one.innerText, two: two.innerText })"
        )
        raise AssertionError(f"Never true: {condition}\n{observed}") from None


# the rates of the server do not depend on the framework
@pytest.mark.parametrize(("framework", "rounds"), [("react", 10), ("vue", 2), ("svelte", 2)])
async def test_hydration_and_hundreds_of_components(serve, cookie, tmp_path, framework, rounds):
    await asyncio.to_thread(build, framework, tmp_path)
    html = (await asyncio.to_thread(render, tmp_path))["html"]
    server = await asyncio.to_thread(serve, "uvicorn")
    await publish("first")
    async with open_page(server, cookie, tmp_path) as page:
        await page.evaluate(HYDRATE, html)
        await wait_for(page, "one.querySelector('ul').innerText === 'first'")
        await publish("another")
        await wait_for(page, "one.querySelector('ul').innerText === 'another\\nfirst'")
        await page.evaluate("end()")
        await wait_for(page, "counts.subscribed > 0 && counts.subscribed === counts.unsubscribed")

        await page.evaluate(MOUNT_MANY, rounds)
        await page.evaluate("void (window.end = app.mount(two, ['published']))")
        await wait_for(page, "two.innerText.trim() === 'another\\nfirst'")
        await wait_for(page, "counts.subscribed === counts.unsubscribed + 1")
        assert await page.evaluate("statuses") == ["connecting", "live"]
        await page.evaluate("end()")
        await wait_for(page, "counts.subscribed === counts.unsubscribed")


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_another_value_of_a_prop_creates_another_list(serve, cookie, tmp_path, framework):
    await asyncio.to_thread(build, framework, tmp_path)
    server = await asyncio.to_thread(serve, "uvicorn")
    await publish("public")
    await Post.objects.acreate(title="secret", status="draft")
    async with open_page(server, cookie, tmp_path) as page:
        await page.evaluate("void (window.component = app.follow(one, 'published'))")
        await wait_for(page, "one.innerText.trim() === 'public'")
        await page.evaluate("component.change('draft')")
        await wait_for(page, "one.innerText.trim() === 'secret'")
        await wait_for(page, "counts.subscribed === 2 && counts.unsubscribed === 1")
        await page.evaluate("component.end()")
        await wait_for(page, "counts.unsubscribed === 2")


async def test_strict_mode_and_two_components_with_one_room(serve, cookie, tmp_path):
    await asyncio.to_thread(build, "react", tmp_path)
    server = await asyncio.to_thread(serve, "uvicorn")
    await publish("first")
    async with open_page(server, cookie, tmp_path) as page:
        await page.evaluate("window.ends = [app.join(one, 'news'), app.join(two, 'news')]")
        await wait_for(page, "one.innerText === 'ada' && two.innerText === 'ada'")
        await page.evaluate("ends[0]()")
        await asyncio.sleep(0.5)
        assert await page.evaluate("two.innerText") == "ada"
        assert await page.evaluate("counts.joined - counts.left") == 1
        await page.evaluate("ends[1]()")
        await wait_for(page, "counts.joined === counts.left")

        # two components with the same list
        await page.evaluate("void (window.end = app.mount(one, ['published']))")
        await page.evaluate("void (window.other = app.mount(two, ['published']))")
        await wait_for(page, "one.innerText === 'first' && two.innerText === 'first'")
        await page.evaluate("end()")
        await publish("another")
        await wait_for(page, "two.innerText === 'another\\nfirst'")
        await page.evaluate("other()")
        await wait_for(page, "counts.subscribed === counts.unsubscribed")

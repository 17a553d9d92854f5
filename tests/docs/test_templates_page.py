"""The examples of the guide for pages that Django renders, in Chromium, with htmx and without."""

import asyncio
import re

import pytest
from django.template import engines

from tests.app.models import Post
from tests.clients.test_browser import chromium
from tests.support.npm import install_package
from tests.support.servers import ROOT

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

HTMX_VERSION = "2.0.8"
GUIDE = (ROOT / "docs" / "how-to" / "frameworks.md").read_text()
SECTION = GUIDE.partition("## Django templates and htmx")[2].partition("\n## ")[0]
(HTMX,) = re.findall(r"```html\n(.*?)```", SECTION, re.S)
(FETCH,) = re.findall(r"```js\n(.*?)```", SECTION, re.S)
PAGES = {
    "fetch": f'{{% load realtime %}}{{% realtime %}}<ul id="posts"></ul>'
    f'<script type="module">{FETCH}</script>',
    "htmx": HTMX.replace('{% include "blog/posts.html" %}', ""),
}


def render_page(kind):
    page = PAGES[kind].replace("{% url 'posts' %}", "/posts/")
    script = ""
    if kind == "htmx":
        htmx = install_package("htmx.org", HTMX_VERSION, required_by="REQUIRE_BROWSER")
        script = f"<script>{(htmx / 'dist' / 'htmx.min.js').read_text()}</script>"
    return script + engines["django"].from_string(page).render()


@pytest.mark.parametrize("kind", PAGES)
async def test_page_requests_its_list_again_after_each_change(serve, cookie, kind):
    from playwright.async_api import expect

    html = await asyncio.to_thread(render_page, kind)
    server = await asyncio.to_thread(serve, "daphne")
    requests = []

    async def show_posts(route):
        requests.append(route.request.url)
        titles = [post.title async for post in Post.objects.order_by("pk")]
        items = "".join(f"<li>{title}</li>" for title in titles)
        await route.fulfill(body=items, content_type="text/html")

    async with chromium() as browser:
        context = await browser.new_context()
        address = f"http://127.0.0.1:{server.port}"
        await context.add_cookies([{"name": "sessionid", "value": cookie, "url": address}])
        page = await context.new_page()
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        await page.route("**/posts/", show_posts)
        await Post.objects.acreate(title="one")  # since the page was rendered
        await page.goto(f"{address}/realtime/health")  # for the address alone
        await page.set_content(html)
        posts = page.locator("#posts")
        await expect(posts).to_have_text("one")
        assert len(requests) == 1
        post = await Post.objects.acreate(title="two")
        await expect(posts).to_have_text("onetwo")
        await post.adelete()
        await expect(posts).to_have_text("one")
        assert len(requests) == 3
        assert errors == []

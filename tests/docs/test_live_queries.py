"""The guide to live queries, in a project with its models, a server, programs and a page."""

import asyncio
import contextlib
import os
import re

import pytest

from django_cocobase_realtime.client import Realtime
from tests.clients.test_browser import chromium
from tests.support.blocks import ROOT, code_blocks
from tests.support.guide_project import GuideProject, line_of

pytestmark = pytest.mark.server
PAGE = ROOT / "docs" / "how-to" / "live-queries.md"
# creates the rows, and then executes what it reads, line by line
WRITER = """
import sys
import django
django.setup()
from django.contrib.auth.models import User
from helpdesk.models import Project, Ticket
User.objects.all().delete()
Project.objects.all().delete()
ada = User.objects.create(pk=1, username="ada")
website = Project.objects.create(pk=1, name="Website")
project = Project.objects.create(pk=2, name="Garden")
website.members.add(ada)
def add(title, priority, hours, project=website):
    Ticket.objects.create(
        title=title, priority=priority, hours=hours, project=project, assignee=ada
    )
{rows}
print("ready", flush=True)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""
FEW_ROWS = """
add("Broken link", 3, "0.25")
add("Typo", 1, "0.12")
add("Slow search", 2, "0.13")
add("Old logo", 1, "0.14")
add("Weeds", 9, "0.15", project)
"""
# fifty tickets, each with its own priority
MANY_ROWS = """
for number in range(50):
    add(f"Ticket {number}", 50 - number, "1.5")
"""
URLS = """
from django.contrib.staticfiles.views import serve
from django.http import HttpResponse
from django.template import Context, Engine
from django.urls import path

engine = Engine(libraries={{
    "realtime": "django_cocobase_realtime.templatetags.realtime",
    "static": "django.templatetags.static",
}})

def show(request):
    context = Context({{"user": {{"pk": 1}}, "token": {token!r}}})
    return HttpResponse(engine.from_string({template!r}).render(context))

urlpatterns = [
    path("", show),
    path("static/<path:path>", serve, {{"insecure": True}}),
]
"""
BUTTONS = "".join(f'<button id="{name}">{name}</button>' for name in ("previous", "next"))


class Site(GuideProject):
    """A project with the guide's models, collection and page."""

    def __init__(self, folder, capture):
        models, tickets, self.program_text, self.script, changes = code_blocks(PAGE, "python")
        self.join, self.leave = changes.splitlines()
        super().__init__(folder, capture, models, tickets)

    def for_server(self, program):
        program = program.replace("wss://example.com/realtime", self.url)
        return program.replace('token="…"', f'token="{self.token}"')

    def write_page(self):
        (template,) = code_blocks(PAGE, "html")
        template = template.replace("{% realtime %}", "{% realtime token=token %}") + BUTTONS
        self.write("mysite/urls.py", URLS.format(token=self.token, template=template))

    @contextlib.asynccontextmanager
    async def writer(self, rows):
        """Create rows, and provide a function that executes a line in the same process."""
        async with self.program("-c", WRITER.replace("{rows}", rows)) as process:
            assert await line_of(process) == "ready"

            async def execute(statement):
                process.stdin.write(f"{statement}\n".encode())
                assert await line_of(process) == "done"

            yield execute


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    # one way of capture per database; other tests combine them
    capture = "triggers" if os.environ.get("TEST_DATABASE") == "postgres" else "signals"
    site = Site(tmp_path_factory.mktemp("site"), capture)
    try:
        site.write_page()
        site.server.start()
        yield site
    finally:
        site.close()
    assert "Traceback" not in site.server.log.read_text()


async def wait_for(read, expected):
    """Wait until a function returns a value."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(20):
            while read() != expected:
                await asyncio.sleep(0.02)
    assert read() == expected


async def test_windows_and_counts_of_the_guide_follow_changes(site):
    async with contextlib.AsyncExitStack() as stack:
        execute = await stack.enter_async_context(site.writer(FEW_ROWS))
        program = site.for_server(site.program_text)
        program = await stack.enter_async_context(site.program("-c", program))
        assert await line_of(program) == "['Broken link', 'Slow search'] True"
        titles = ["Broken link", "Slow search", "Typo", "Old logo"]
        assert await line_of(program) == f"{titles} False"
        assert await line_of(program) == "4 [('1', '0.64')]"
        db = await stack.enter_async_context(Realtime(site.url, token=site.token))
        top = db.live("tickets", order="-priority,created_at", limit=2)
        await top.ready()

        def shown():
            return [ticket.data["title"] for ticket in top.documents], top.has_more

        await execute("Ticket.objects.filter(title='Broken link').update(status='closed')")
        assert await line_of(program) == "3 [('1', '0.39')]"
        await execute("Ticket.objects.filter(title='Broken link').delete()")
        await wait_for(shown, (["Slow search", "Typo"], True))
        await execute("Ticket.objects.filter(title='Old logo').update(priority=8)")
        await wait_for(shown, (["Old logo", "Slow search"], True))
        await execute(site.join)
        assert await line_of(program) == "4 [('1', '0.39'), ('2', '0.15')]"
        await wait_for(shown, (["Weeds", "Old logo"], True))

        pages = await stack.enter_async_context(site.program("-c", site.for_server(site.script)))
        assert await line_of(pages) == "['Weeds', 'Old logo']"
        assert await line_of(pages) == "['Slow search', 'Typo']"
        assert await line_of(pages) == ""

        await execute(site.leave)
        assert await line_of(program) == "3 [('1', '0.39')]"
        await wait_for(shown, (["Old logo", "Slow search"], True))


def tickets(numbers):
    return [f"{50 - number} Ticket {number}" for number in numbers]


@pytest.mark.browser
async def test_page_of_the_guide_loads_more_and_counts(site):
    from playwright.async_api import expect

    window, more, scroll, pages, count, groups = code_blocks(PAGE, "js")
    async with site.writer(MANY_ROWS) as execute, chromium() as browser:
        errors, lines = [], []

        async def open_page(*blocks):
            page = await browser.new_page(viewport={"width": 400, "height": 300})
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("console", lambda message: lines.append(message.text))

            async def send_script(route):
                script = "\n".join(blocks)
                await route.fulfill(body=script, content_type="text/javascript")

            await page.route("**/tickets.js", send_script)
            await page.goto(f"http://127.0.0.1:{site.server.port}/")
            return page, page.locator("#tickets li")

        page, items = await open_page(window, more, count, groups)
        await expect(items).to_have_text(tickets(range(20)))
        await expect(page.locator("#badge")).to_have_text("50")
        await page.click("#more")
        await expect(items).to_have_text(tickets(range(40)))
        await page.click("#more")
        await expect(items).to_have_text(tickets(range(50)))
        await expect(page.locator("#more")).to_be_hidden()
        await execute("Ticket.objects.filter(title='Ticket 3').update(status='closed')")
        rest = [*range(3), *range(4, 50)]
        await expect(items).to_have_text(tickets(rest))
        await expect(page.locator("#badge")).to_have_text("49")
        line = "project 1: 49 tickets, 73.50 hours, 1.50 at most"
        await wait_for(lambda: lines[-1], line)
        await page.close()

        page, items = await open_page(window, scroll)
        await expect(items).to_have_count(40)
        await page.mouse.move(100, 100)
        await page.mouse.wheel(0, 2000)
        await expect(items).to_have_text(tickets(rest))
        await page.close()

        page, items = await open_page(window, pages)
        await expect(items).to_have_text(tickets(rest[:20]))
        await page.click("#next")
        await expect(items).to_have_text(tickets(rest[20:40]))
        await page.click("#next")
        await expect(items).to_have_text(tickets(rest[40:]))
        await execute("Ticket.objects.filter(title='Ticket 45').delete()")
        rest.remove(45)
        await expect(items).to_have_text(tickets(rest[40:]))
        await page.click("#previous")
        await expect(items).to_have_text(tickets(rest[20:40]))
        await page.close()
    assert errors == []


def test_check_names_the_index_of_the_guide_if_it_is_missing(site):
    models = site.folder / "helpdesk" / "models.py"
    text = models.read_text()
    try:
        models.write_text(re.sub(r"\n    class Meta:.*", "\n", text, flags=re.S))
        output = site.run("-m", "django", "check")
    finally:
        models.write_text(text)
    (message,) = code_blocks(PAGE, "text")
    assert message in output

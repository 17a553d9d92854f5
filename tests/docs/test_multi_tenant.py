"""The guide to multi-tenant permissions, in a project with its models, a server and a client."""

import asyncio
import contextlib
import re
import textwrap

import pytest

from django_cocobase_realtime.client import Realtime
from tests.support.blocks import ROOT, code_blocks
from tests.support.guide_project import GuideProject, line_of

pytestmark = pytest.mark.server
PAGE = ROOT / "docs" / "how-to" / "multi-tenant.md"
# creates the rows, and then executes what it reads, block by block
WRITER = """
import sys
import django
django.setup()
from django.contrib.auth.models import User
from helpdesk.models import Comment, Membership, Organization, Project, Ticket
ada = User.objects.create(pk=1, username="ada")
acme, other = (Organization.objects.create(name=name) for name in ("Acme", "Other"))
for name, organization in {"Website": acme, "Office": acme, "Garden": other}.items():
    project = Project.objects.create(name=name, organization=organization)
    ticket = Ticket.objects.create(title=f"Ticket of {name}", project=project)
    Comment.objects.create(text=f"Comment in {name}", ticket=ticket)
print("ready", flush=True)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


class Site(GuideProject):
    """A project with the guide's models and permissions."""

    def __init__(self, folder, capture):
        blocks = code_blocks(PAGE, "python")
        models, tickets, *methods, comments, _, changes, self.client, _ = blocks
        by_path, by_role, by_path_or_assignee = methods
        self.changes = changes.splitlines()
        declared = [
            tickets,
            _variant(tickets, "by_path", by_path),
            _variant(tickets, "by_role", by_role),
            _variant(tickets, "by_path_or_assignee", by_path_or_assignee),
            comments,
            re.sub(r"^ *depends_on = .*\n", "", _variant(tickets, "undeclared"), flags=re.M),
        ]
        super().__init__(folder, capture, models, "\n\n".join(declared))


def _variant(source, name, method=None):
    """Return the declaration of the collection with another name, and another ``visible_to``."""
    head, old = source.split("    def visible_to", 1)
    head = head.replace('@register("tickets")', f'@register("{name}")')
    return head + (
        f"    def visible_to{old}" if method is None else textwrap.indent(method, "    ")
    )


@pytest.fixture(params=["signals", "triggers"])
def site(request, tmp_path):
    site = Site(tmp_path, request.param)
    try:
        site.server.start()
        yield site
    finally:
        site.close()


async def wait_for(titles, documents, field="title"):
    """Wait until a live list has the documents with these titles, or other values."""
    async with asyncio.timeout(20):
        while [document.data[field] for document in documents.documents] != titles:
            await asyncio.sleep(0.02)


async def test_lists_of_the_guide_follow_memberships(site):
    site.client = site.client.replace("wss://example.com/realtime", site.url)
    site.client = site.client.replace('token="…"', f'token="{site.token}"')
    errors = []
    async with contextlib.AsyncExitStack() as stack:
        writer = await stack.enter_async_context(site.program("-c", WRITER))
        assert await line_of(writer) == "ready"

        async def execute(statement):
            writer.stdin.write(f"{statement}\n".encode())
            assert await line_of(writer) == "done"

        program = await stack.enter_async_context(site.program("-c", site.client))
        statuses = []
        db = Realtime(
            site.url, token=site.token, on_status=lambda status, detail: statuses.append(status)
        )
        await stack.enter_async_context(db)
        by_path, by_role, by_path_or_assignee = lists = [
            db.live(name, order="title") for name in ("by_path", "by_role", "by_path_or_assignee")
        ]
        comments = db.live("comments", order="text")
        for documents in (*lists, comments):
            await documents.ready()
        begin, move, end = site.changes

        await execute(begin)
        both = ["Ticket of Office", "Ticket of Website"]
        assert await line_of(program) == repr(both)
        await wait_for(both, by_path)
        await wait_for(both, by_path_or_assignee)
        await wait_for([], by_role)
        await wait_for(["Comment in Office", "Comment in Website"], comments, "text")
        await execute("Membership.objects.update(role='admin')")
        await wait_for(both, by_role)

        await execute(move)
        assert await line_of(program) == repr(["Ticket of Office"])
        for tickets in lists:
            await wait_for(["Ticket of Office"], tickets)
        await wait_for(["Comment in Office"], comments, "text")
        await execute("office = Project.objects.get(name='Office')")
        await execute("Ticket.objects.filter(title='Ticket of Website').update(project=office)")
        assert await line_of(program) == repr(both)
        await wait_for(["Comment in Office", "Comment in Website"], comments, "text")
        await execute("website = Project.objects.get(name='Website')")
        await execute("Ticket.objects.filter(title='Ticket of Website').update(project=website)")
        assert await line_of(program) == repr(["Ticket of Office"])
        await wait_for(["Comment in Office"], comments, "text")
        await execute("Ticket.objects.filter(title='Ticket of Garden').update(assignee=ada)")
        await wait_for(["Ticket of Garden", "Ticket of Office"], by_path_or_assignee)

        await execute(end)
        assert await line_of(program) == "[]"
        await wait_for([], by_path)
        await wait_for([], by_role)
        await wait_for(["Ticket of Garden"], by_path_or_assignee)
        await wait_for([], comments, "text")

        undeclared = db.live("undeclared", on_error=errors.append)
        async with asyncio.timeout(20):
            while not errors:
                await asyncio.sleep(0.02)
        undeclared.stop()
        assert [error.code for error in errors] == ["internal_error"]
        assert statuses.count("connecting") == 1  # there was no other connection
    (message,) = code_blocks(PAGE, "text")
    message = message.strip().replace("'tickets'", "'undeclared'")
    log = site.server.log.read_text()
    assert f"ImproperlyConfigured: {message}" in log
    (names,) = re.findall(r"depends_on = \[(.*)\]", message)
    with_line = re.search(r"depends_on = \((.*)\)", PAGE.read_text())[1]
    assert sorted(with_line.replace('"', "'").split(", ")) == names.split(", ")

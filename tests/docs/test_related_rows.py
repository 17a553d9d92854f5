"""The guide to related rows, in a project with its models, a server and a client."""

import asyncio
import contextlib
import json

import pytest

from django_cocobase_realtime.client import Realtime
from tests.support.blocks import ROOT, code_blocks
from tests.support.guide_project import GuideProject, line_of

pytestmark = pytest.mark.server
PAGE = ROOT / "docs" / "how-to" / "related-rows.md"
# creates the rows, and then executes what it reads, line by line
WRITER = """
import sys
import django
django.setup()
from django.contrib.auth.models import User
from helpdesk.models import Organization, Project, Tag, Ticket
ada = User.objects.create(pk=1, username="ada")
acme, other = (Organization.objects.create(name=name) for name in ("Acme", "Other"))
project = Project.objects.create(name="Website", organization=acme, logo="logos/site.png")
ticket = Ticket.objects.create(title="Broken link", project=project, assignee=ada)
for name in ("urgent", "website"):
    ticket.tags.add(Tag.objects.create(name=name))
print("ready", flush=True)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


class Site(GuideProject):
    """A project with the guide's models and collections."""

    def __init__(self, folder, capture):
        models, tickets, self.client, changes, serialized = code_blocks(PAGE, "python")
        self.changes = changes.splitlines()
        super().__init__(folder, capture, models, f"{tickets}\n\n{serialized}")


@pytest.fixture(params=["signals", "triggers"])
def site(request, tmp_path):
    site = Site(tmp_path, request.param)
    try:
        site.server.start()
        yield site
    finally:
        site.close()


async def wait_for(tickets, **data):
    """Wait until the only document of a live list has this data."""
    async with asyncio.timeout(20):
        while not tickets.documents or not data.items() <= tickets.documents[0].data.items():
            await asyncio.sleep(0.02)


async def test_documents_of_the_guide_follow_related_rows(site):
    client = site.client.replace("wss://example.com/realtime", site.url)
    client = client.replace('token="…"', f'token="{site.token}"')
    async with contextlib.AsyncExitStack() as stack:
        writer = await stack.enter_async_context(site.program("-c", WRITER))
        assert await line_of(writer) == "ready"

        async def execute(statement):
            writer.stdin.write(f"{statement}\n".encode())
            assert await line_of(writer) == "done"

        db = await stack.enter_async_context(Realtime(site.url, token=site.token))
        tickets, serialized = db.live("tickets"), db.live("serialized_tickets")
        changes = await stack.enter_async_context(db.watch("serialized_tickets"))
        await tickets.ready()
        await serialized.ready()
        shown = json.loads(code_blocks(PAGE, "json")[0])
        assert tickets.documents[0].data == shown
        document = {
            "title": "Broken link",
            "assignee": {"id": "1", "name": "ada"},
            "organization": "ACME",
            "tags": ["urgent", "website"],
        }
        assert serialized.documents[0].data == document
        program = await stack.enter_async_context(site.program("-c", client))
        assert await line_of(program) == "[('Broken link', 'ada')]"
        rename, move, clear = site.changes

        await execute(rename)
        assert await line_of(program) == "[('Broken link', 'ada.l')]"
        await wait_for(tickets, **shown | {"assignee.username": "ada.l"})
        await wait_for(serialized, assignee={"id": "1", "name": "ada.l"})
        await execute(move)
        await wait_for(tickets, **{"project.organization.name": "Other"})
        await wait_for(serialized, organization="OTHER")
        await execute(clear)
        await wait_for(tickets, **{"tags": [], "tags.name": []})
        await wait_for(serialized, tags=[])
        changed = [(await anext(changes)).changed for _ in range(3)]
        assert [tuple(names) for names in changed] == [("assignee",), (), ("tags",)]

"""The admin's pages that show connections, streams and rooms."""

import asyncio

import django
import pytest
from asgiref.sync import sync_to_async
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.test import Client

from django_cocobase_realtime.inspection import live
from django_cocobase_realtime.models import ApiKey, LogEvent
from django_cocobase_realtime.models import Connection as ConnectionModel
from tests.app.models import Post
from tests.clients.test_browser import chromium
from tests.support.client import connect

pytestmark = pytest.mark.django_db(transaction=True)
URL = "/admin/cocobase_realtime/connection/"
PAGES = (URL, f"{URL}streams/", f"{URL}rooms/")
VIEW, CLOSE = "view_connections", "disconnect_connections"


@pytest.fixture
def make_staff(django_user_model):
    """Return a function that creates a user with permissions; staff unless refused."""

    def make(name, *permissions, is_staff=True):
        user = django_user_model.objects.create_user(name, password="x", is_staff=is_staff)
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        return user

    return make


def logged_in(user, **options):
    client = Client(**options)
    client.force_login(user)
    return client


async def get(client, url=URL):
    response = await sync_to_async(client.get)(url)
    return response.content.decode()


@pytest.fixture
async def admin(make_staff):
    user = await sync_to_async(make_staff)("ops", VIEW, CLOSE)
    return await sync_to_async(logged_in)(user)


def test_pages_need_the_permission_and_staff(make_staff, client):
    for url in PAGES:
        assert "/login/" in client.get(url).url
    allowed = logged_in(make_staff("viewer", VIEW))
    refused = [logged_in(make_staff("none")), logged_in(make_staff("closer", CLOSE))]
    for url in PAGES:
        assert allowed.get(url).status_code == 200
        assert [client.get(url).status_code for client in refused] == [403, 403]
    assert "/login/" in logged_in(make_staff("customer", VIEW, is_staff=False)).get(URL).url
    assert URL in allowed.get("/admin/").content.decode()
    assert URL not in refused[0].get("/admin/").content.decode()
    page = allowed.get(URL).content.decode()
    assert ('<ol class="breadcrumbs">' in page) is (django.VERSION >= (6, 1))
    for path in ("add/", "1/change/", "1/delete/", "1/history/"):
        assert allowed.get(URL + path).status_code == 404


async def test_connections_are_shown_and_searched(realtime, user, api_key, admin):
    key = await ApiKey.objects.aget()
    async with realtime(user=user) as ann, realtime(token=api_key) as app:
        await ann.join("<b>lobby")
        await ann.subscribe("posts", filters={"title": "<i>draft"})
        await app.subscribe("messages", subscription="one", document="7")
        page = await get(admin)
        assert "2 connections" in page
        assert "&lt;b&gt;lobby" in page
        assert "&quot;&lt;i&gt;draft&quot;" in page
        assert "<b>lobby" not in page
        assert "<i>draft" not in page
        assert f"key:{key.prefix}" in page
        assert "document 7" in page
        assert api_key.rpartition("_")[2] not in page
        assert "1 connection matching" in await get(admin, f"{URL}?q=key:{key.prefix}+DEFAULT")
        assert "0 connections matching" in await get(admin, f"{URL}?q=key:{key.prefix}+xyz")
        rooms = await get(admin, PAGES[2])
        assert "1 room" in rooms
        assert "&lt;b&gt;lobby" in rooms


async def test_streams_are_shown(realtime, user, admin):
    async with realtime(user=user) as client:
        await client.subscribe("posts")
        await client.subscribe("posts", subscription="drafts", filters={"status": "draft"})
        for number in range(3):
            await Post.objects.acreate(title=str(number))
        async with asyncio.timeout(10):
            while await LogEvent.objects.filter(seq__isnull=True).aexists():
                await asyncio.sleep(0.02)
        page = " ".join((await get(admin, PAGES[1])).split())
        row = page[page.index("<strong>posts") :].partition("</tr>")[0]
        assert "1 process<" in row
        assert "3 events" in row


async def test_connection_is_closed_after_a_confirmation(realtime, user, admin):
    async with realtime(user=user) as first, realtime(user=user) as second:
        page = await get(admin)
        ids = [part.partition('"')[0] for part in page.split('name="connection" value="')[1:]]
        assert len(ids) == 2
        data = {"connection": ids[1], "project": "default"}  # the first, since the latest is above
        post = sync_to_async(admin.post)
        confirmation = await post(f"{URL}disconnect/", data)
        assert "Close this connection?" in confirmation.content.decode()
        await asyncio.sleep(0.1)
        assert (await get(admin)).count("close-all-") == 2
        response = await post(f"{URL}disconnect/", data | {"confirmed": "yes"}, follow=True)
        assert "1 connection is being closed." in response.content.decode()
        assert await first.closed() == 4500
        assert await second.receive_nothing()
        assert (await LogEntry.objects.aget()).object_id == ids[1]
        # all of the user
        data = {"user": str(user.pk), "project": "default", "confirmed": "yes"}
        other = await post(f"{URL}disconnect/", data | {"project": "other"}, follow=True)
        assert "no such connection" in other.content.decode()
        assert await second.receive_nothing()
        await post(f"{URL}disconnect/", data)
        assert await second.closed() == 4500


async def test_closing_needs_both_permissions_and_a_token(realtime, user, make_staff):
    async with realtime(user=user) as client:
        data = {"user": str(user.pk), "project": "default", "confirmed": "yes"}
        for name, permissions in (("viewer", [VIEW]), ("closer", [CLOSE])):
            staff = await sync_to_async(make_staff)(name, *permissions)
            session = await sync_to_async(logged_in)(staff)
            response = await sync_to_async(session.post)(f"{URL}disconnect/", data)
            assert response.status_code == 403
            assert "close-all-" not in await get(session)
        staff = await sync_to_async(make_staff)("both", VIEW, CLOSE)
        session = await sync_to_async(logged_in)(staff, enforce_csrf_checks=True)
        response = await sync_to_async(session.post)(f"{URL}disconnect/", data)
        assert response.status_code == 403
        await sync_to_async(session.get)(f"{URL}disconnect/", data)
        assert await client.receive_nothing()


async def test_room_sends_totals_to_permitted_staff(realtime, make_staff, settings, monkeypatch):
    monkeypatch.setattr(live, "INTERVAL", 0.05)
    settings.COCOBASE_REALTIME = {**settings.COCOBASE_REALTIME, "ROOMS": {"lobby": {}}}
    staff = await sync_to_async(make_staff)("viewer", VIEW)
    async with realtime(user=staff) as client:
        reply = await client.join("$operations", presence=True)
        assert (reply["type"], reply["members"], reply["participants"]) == ("joined", [], 0)
        await client.send({"type": "subscribe", "collection": "posts"})
        async with asyncio.timeout(5):
            while (frame := await client.receive()).get("event") != "broadcast" or not (
                server := frame["message"]["servers"][0]
            )["subscriptions"]:
                pass
        assert (server["connections"], server["subscriptions"], server["rooms"]) == (1, 1, 0)
        await client.send({"type": "broadcast", "room": "$operations", "message": 1, "id": 9})
        while (frame := await client.receive()).get("id") != 9:
            pass
        assert frame["code"] == "forbidden"
        await client.send({"type": "leave", "room": "$operations", "id": 10})
        while (frame := await client.receive()).get("id") != 10:
            pass
        await asyncio.sleep(0.2)
        assert not live._active  # nothing is counted while all pages are closed


@pytest.mark.parametrize("rooms", [None, {"*": {}}, {"$operations": {"public": True}}])
async def test_room_refuses_others(realtime, make_staff, user, settings, rooms):
    if rooms is not None:
        settings.COCOBASE_REALTIME = {**settings.COCOBASE_REALTIME, "ROOMS": rooms}
    staff = await sync_to_async(make_staff)("viewer", VIEW)
    customer = await sync_to_async(make_staff)("customer", VIEW, is_staff=False)
    other = await sync_to_async(make_staff)("closer", CLOSE)
    _, key = await sync_to_async(ApiKey.objects.create_key)("key", user=staff, can_publish=True)
    for credential in ({"user": user}, {"user": customer}, {"user": other}, {"token": key}):
        async with realtime(**credential) as client:
            reply = await client.request({"type": "join", "room": "$operations"})
            assert (reply["type"], reply["code"]) == ("error", "forbidden")
    session = await sync_to_async(Client)(headers={"authorization": f"Bearer {key}"})
    response = await sync_to_async(session.post)(
        "/realtime/publish", {"room": "$operations", "message": 1}, "application/json"
    )
    assert response.status_code == 403


@pytest.mark.browser
@pytest.mark.timeout(120)
async def test_page_shows_new_connections_and_closes_them(serve, make_staff, user):
    from playwright.async_api import expect

    expect.set_options(timeout=20_000)
    staff = await sync_to_async(make_staff)("ops", VIEW, CLOSE)
    _, key = await sync_to_async(ApiKey.objects.create_key)("ann's key", user=user)
    cookie = (await sync_to_async(logged_in)(staff)).cookies["sessionid"].value
    server = await asyncio.to_thread(serve, "daphne")
    address = f"http://127.0.0.1:{server.port}"
    async with chromium() as browser:
        context = await browser.new_context()
        await context.add_cookies([{"name": "sessionid", "value": cookie, "url": address}])
        page = await context.new_page()
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        await page.goto(address + URL)
        await expect(page.locator("#operations-status")).to_have_text("Live")
        await expect(page.locator("#operations-totals")).to_contain_text("1 process · 1 connection")
        async with connect(server.socket_url, key) as client:
            await client.subscribe("posts", filters={"status": "draft"})
            row = page.locator("tbody tr", has_text="key:")
            await expect(row).to_contain_text('posts {"status": "draft"}')
            await client.send({"type": "join", "room": "lobby"})
            await expect(row).to_contain_text("lobby")
            await row.get_by_role("button", name="Close this connection").click()
            await page.get_by_role("button", name="Yes, close").click()
            assert await client.closed() == 4500
            await expect(page.locator(".messagelist")).to_contain_text(
                "1 connection is being closed"
            )
            await expect(row).to_have_count(0)
        assert errors == []


def test_permissions_are_the_only_ones_of_the_model():
    names = Permission.objects.filter(content_type__model=ConnectionModel._meta.model_name)
    assert set(names.values_list("codename", flat=True)) == {VIEW, CLOSE}

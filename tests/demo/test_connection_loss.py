"""The demo's pages resume after a lost network, a killed server and a suspended browser."""

import asyncio
import os
import re
import signal

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def test_page_resumes_when_network_returns(windows, demo):
    from playwright.async_api import expect

    one = await windows.open()
    two = await windows.open()
    await one.context.set_offline(True)
    await expect(one.locator("#state")).to_have_text("no network")
    await expect(one.locator("#state")).to_contain_text("disconnected", timeout=20_000)
    await two.fill("#task-title", "While the network was away")
    await two.press("#task-title", "Enter")
    await expect(two.locator("#you .columns")).to_contain_text("While the network was away")
    # a failed action shows a message
    await one.locator("#you .card [data-act=right]:enabled").first.click()
    await expect(one.locator("#toast")).to_contain_text("does not answer")
    await one.context.set_offline(False)
    await expect(one.locator("#you .columns")).to_contain_text("While the network was away")
    await expect(one.locator("#log")).to_contain_text('"resumed": true')
    await (
        one.locator("#you").get_by_role("button", name="Delete: While the network was away").click()
    )
    await expect(two.locator("#you .columns")).not_to_contain_text("While the network was away")


async def test_pages_resume_after_server_restart(windows, demo):
    from playwright.async_api import expect

    board = await windows.open()
    chat = await windows.open("chat/")
    permissions = await windows.open("permissions/")
    demo.shell("Task.objects.create(title='Before')")
    await expect(board.locator("#you .columns")).to_contain_text("Before")
    await asyncio.to_thread(demo.kill)
    await expect(board.locator("#state")).to_contain_text(re.compile("disconnected|connecting"))
    # a message sent without a server is delivered when it is back
    await chat.fill("#message", "Is anybody there?")
    await chat.press("#message", "Enter")
    await expect(chat.locator(".pending")).to_contain_text("sending…")
    demo.shell(
        "from django.contrib.auth.models import User;"
        "Task.objects.filter(title='Before').delete(); Task.objects.create(title='Meanwhile');"
        "chair = Parcel.objects.filter(title='Garden chair');"
        "chair.update(owner=User.objects.get(username='ada'))"
    )
    await asyncio.to_thread(demo.start)
    await expect(board.locator("#you .columns")).to_contain_text("Meanwhile", timeout=30_000)
    await expect(board.locator("#you .columns")).not_to_contain_text("Before")
    await expect(board.locator("#log")).to_contain_text('"resumed": true')
    await expect(chat.locator("#messages li", has_text="Is anybody there?")).to_contain_text(
        "round trip", timeout=30_000
    )
    await expect(chat.locator("#messages li", has_text="Is anybody there?")).to_have_count(1)
    await expect(permissions.locator("[data-who=ada] .parcels")).to_contain_text(
        "Garden chair", timeout=30_000
    )
    demo.shell("Parcel.objects.filter(title='Garden chair').update(owner=None)")
    await expect(permissions.locator("[data-who=ada] .parcels")).not_to_contain_text("Garden chair")


async def renderers(system):
    """Return the process ids of the browser's pages."""
    info = await system.send("SystemInfo.getProcessInfo")
    return {process["id"] for process in info["processInfo"] if process["type"] == "renderer"}


async def test_pages_resume_after_computer_slept(windows, demo):
    """The browser's processes are suspended while the server restarts."""
    from playwright.async_api import expect

    system = await windows.browser.new_browser_cdp_session()
    board = await windows.open()
    chat = await windows.open("chat/")
    await expect(board.locator("#you .card").first).to_be_visible()
    suspended = await renderers(system)  # windows of other tests are closed
    assert suspended
    for pid in suspended:
        os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.to_thread(demo.kill)
        await asyncio.to_thread(demo.shell, "Task.objects.create(title='While it slept')")
        await asyncio.to_thread(demo.start)
        await asyncio.sleep(4)
    finally:
        for pid in suspended:
            os.kill(pid, signal.SIGCONT)
    await expect(board.locator("#you .columns")).to_contain_text("While it slept", timeout=20_000)
    await expect(board.locator("#state")).to_have_text("live")
    await expect(chat.locator("#state")).to_have_text("live", timeout=20_000)
    await chat.fill("#message", "Awake")
    await chat.press("#message", "Enter")
    await expect(chat.locator("#messages li").last).to_contain_text("Awake")

"""The first page of the demo: two viewers, a card that the server moves, code, frames, filter."""

import asyncio
import json
import re

import pytest

from .test_pages import DESK, card_button, column

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]
AUTO_CARD = "Nightly backup"


async def test_two_viewers_show_each_others_moves(windows):
    from playwright.async_api import expect

    page = await windows.open(viewport=DESK)
    sockets = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    await page.reload()
    await page.locator("body[data-ready]").wait_for()
    assert len(sockets) == 2
    names = {
        "you": await page.locator("#you [data-me]").inner_text(),
        "second": await page.locator("#second [data-name]").inner_text(),
    }
    assert names["you"] != names["second"]
    await page.fill("#task-title", "Two viewers")
    await page.press("#task-title", "Enter")
    moves = (("you", "doing"), ("second", "done"))
    for viewer, target in moves:
        await card_button(page, "Move right: Two viewers", viewer).click()
        for shown in ("you", "second"):
            card = column(page, target, shown).locator(".card", has_text="Two viewers")
            await expect(card.locator(".who")).to_have_text(names[viewer])
            await expect(page.locator(f"#{shown} .change")).to_contain_text(
                f"Two viewers moved to {target.capitalize()}, by {names[viewer]}"
            )

    # a filter is of one viewer only
    await page.fill("#words", "Two viewers")
    await expect(page.locator("#you .card")).to_have_count(1)
    assert await page.locator("#second .card").count() > 1
    # drag a card of the second viewer
    await page.fill("#words", "")
    card = page.locator("#second .card", has_text="Two viewers")
    await card.evaluate(
        "card => Promise.all(card.getAnimations().map((each) => each.finished.catch(() => {})))"
    )
    await card.drag_to(page.locator("#second [data-column=todo]"))
    await expect(column(page, "todo")).to_contain_text("Two viewers")
    await card_button(page, "Delete: Two viewers").click()
    await expect(page.locator("#second .columns")).not_to_contain_text("Two viewers")


async def test_server_moves_card_after_page_opened_and_stops(windows):
    from playwright.async_api import expect

    page = await windows.open(auto_moves=True)
    for viewer in ("you", "second"):
        await expect(page.locator(f"#{viewer} .card.flash")).to_contain_text(AUTO_CARD)
        await expect(page.locator(f"#{viewer} .change")).to_contain_text(
            re.compile(f"{AUTO_CARD} moved to .*, by Server")
        )
    await asyncio.sleep(5)
    last = await page.locator("#you .change").inner_text()
    await asyncio.sleep(3)
    assert await page.locator("#you .change").inner_text() == last
    await expect(page.locator(".card.flash")).to_have_count(0)

    # a deleted card is created again, on request
    await card_button(page, f"Delete: {AUTO_CARD}").click()
    await expect(page.locator("#you .columns")).not_to_contain_text(AUTO_CARD)
    await page.locator("#auto-moves").click()
    await expect(column(page, "todo")).to_contain_text(AUTO_CARD)
    await expect(column(page, "done")).to_contain_text(AUTO_CARD)


async def test_no_card_is_moved_on_opening_with_reduced_motion(windows):
    from playwright.async_api import expect

    requests = []
    page = await windows.open(auto_moves=True, reduced_motion="reduce")
    page.on("request", lambda request: requests.append(request.url))
    await page.reload()
    await page.locator("body[data-ready]").wait_for()
    assert not any(url.endswith("/api/auto-moves") for url in requests)
    # the highlight stays: it is a color, not a motion
    await card_button(page, "Move right: Write the release notes").click()
    card = page.locator("#second [data-column=doing] .card.flash", has_text="release notes")
    await expect(card).to_be_visible()
    background = "card => getComputedStyle(card).backgroundColor"
    # not a card that the server still moves for the test before this one
    other = page.locator("#second [data-column=done] .card", has_text="price list")
    assert await card.evaluate(background) != await other.evaluate(background)
    await card_button(page, "Move left: Write the release notes").click()
    await expect(column(page, "todo")).to_contain_text("Write the release notes")


async def test_filter_without_matches_can_be_cleared(windows):
    from playwright.async_api import expect

    page = await windows.open()
    message = page.locator("#you .empty")
    await expect(message).to_be_hidden()
    await page.fill("#words", "no such card")
    await expect(message).to_contain_text("No cards match “no such card”.")
    await expect(page.locator("#you .columns")).to_be_hidden()
    await page.check("#mine")
    await expect(message).to_contain_text("No cards match “no such card” and “moved by me”.")
    await page.fill("#words", "")
    await expect(message).to_contain_text("No cards match “moved by me”.")
    assert await page.locator("#second .card").count() > 1
    # a card that begins to match ends the empty state
    await card_button(page, "Move right: Write the release notes", "second").click()
    await expect(column(page, "doing", "second")).to_contain_text("Write the release notes")
    await expect(message).to_be_visible()
    await page.fill("#task-title", "Matches the filter")
    await page.press("#task-title", "Enter")
    await expect(column(page, "todo")).to_contain_text("Matches the filter")
    await expect(message).to_be_hidden()
    await card_button(page, "Delete: Matches the filter").click()
    await expect(message).to_be_visible()

    await page.get_by_role("button", name="Clear the filter").click()
    await expect(message).to_be_hidden()
    await expect(page.locator("#words")).to_be_focused()
    await expect(page.locator("#mine")).not_to_be_checked()
    await expect(column(page, "doing")).to_contain_text("Write the release notes")
    await card_button(page, "Move left: Write the release notes").click()
    await expect(column(page, "todo")).to_contain_text("Write the release notes")


async def test_frames_are_folded_and_wrap_at_360_pixels(windows):
    from playwright.async_api import expect

    page = await windows.open(viewport={"width": 360, "height": 800})
    await page.fill("#task-title", "Long" * 30)
    await page.press("#task-title", "Enter")
    frame = page.locator("#log li", has_text="LongLong").first
    await expect(frame.locator("summary")).to_contain_text("inserted “LongLong")
    await expect(frame.locator("pre")).to_be_hidden()
    # open it with the keyboard
    await frame.locator("summary").focus()
    await page.keyboard.press("Enter")
    await expect(frame.locator("pre")).to_be_visible()
    text = await frame.locator("pre").inner_text()
    assert json.loads(text)["type"] in ("window", "events")
    assert '\n  "type": "' in text

    await page.locator("#log details").evaluate_all(
        "all => all.forEach((one) => (one.open = true))"
    )
    overflowing = """() => [...document.querySelectorAll("#log, #log *")]
        .filter((node) => node.scrollWidth > node.clientWidth + 1 && node.clientWidth > 0)
        .filter((node) => !node.classList.contains("sr"))
        .map((node) => node.outerHTML.slice(0, 200))"""
    assert await page.evaluate(overflowing) == []
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    await card_button(page, "Delete: LongLong").click()
    await expect(page.locator("#second .columns")).not_to_contain_text("LongLong")


async def test_viewers_are_beside_each_other_or_stacked(windows):
    from playwright.async_api import expect

    page = await windows.open(viewport=DESK)
    you, second = page.locator("#you"), page.locator("#second")
    left, right = await you.bounding_box(), await second.bounding_box()
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] < right["x"]
    for viewer in (you, second):
        await expect(viewer.locator(".card").first).to_be_in_viewport(ratio=1)
    await page.set_viewport_size({"width": 360, "height": 800})
    top, bottom = await you.bounding_box(), await second.bounding_box()
    assert top["x"] == bottom["x"]
    assert top["y"] + top["height"] < bottom["y"]


async def test_first_page_says_what_it_is_and_links_to_docs_and_code(windows, demo):
    from playwright.async_api import expect

    page = await windows.open(viewport=DESK)
    claim = page.get_by_text("Every card is a Django row; every change arrives over one WebSocket.")
    await expect(claim).to_be_in_viewport()
    code = page.locator("#code .excerpt").first
    await expect(code).to_be_hidden()
    await page.get_by_role("link", name="Code behind this page").click()
    await expect(code).to_be_visible()
    for text in ("class Task(models.Model)", '"model": "board.Task"', 'this.db.live("tasks"'):
        await expect(page.locator("#code")).to_contain_text(text)
    await page.get_by_role("link", name="models.py").click()
    await expect(page.locator("pre.file")).to_contain_text("class Task(models.Model)")
    await page.get_by_role("link", name="Tutorial").click()
    await expect(page.locator("pre.file")).to_contain_text("# Tutorial")


@pytest.mark.parametrize("path", ["", "chat/", "reconnect/", "load/", "permissions/"])
async def test_page_shows_its_code(windows, demo, path):
    page = await windows.open(path)
    excerpts = await page.locator("#code .excerpt pre").all_text_contents()
    assert len(excerpts) >= 3
    assert all(text.strip() for text in excerpts)
    for link in await page.locator("#code .excerpt a").all():
        response = await page.context.request.get(
            demo.url + (await link.get_attribute("href")).lstrip("/")
        )
        assert response.status == 200


async def test_files_page_shows_docs_and_code_and_nothing_else(windows, demo):
    page = await windows.open("files/")
    hrefs = await page.locator(".files a").evaluate_all("all => all.map((one) => one.pathname)")
    assert "/files/docs/tutorial.md" in hrefs
    assert "/files/demo_project/settings.py" in hrefs
    get = page.context.request.get
    for href in hrefs:
        assert (await get(demo.url + href.lstrip("/"))).status == 200, href
    for path in ("manage.py", "pyproject.toml", "docs/images/demo.png", "..%2fmanage.py"):
        assert (await get(demo.url + "files/" + path)).status == 404, path

"""Each page of the demo in two windows: changes in one are shown in the other."""

import re

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]
DESK = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


def column(page, name, viewer="you"):
    return page.locator(f"#{viewer} [data-column={name}] .cards")


def card_button(page, name, viewer="you"):
    return page.locator(f"#{viewer}").get_by_role("button", name=name)


async def test_board_shows_changes_of_other_windows(windows, demo):
    from playwright.async_api import expect

    one = await windows.open(viewport=DESK)
    two = await windows.open(viewport=PHONE)
    me = await one.locator("[data-me]").inner_text()

    # add a card, move it with a button of the other window, then with the keyboard
    await one.fill("#task-title", "Ring the bell")
    await one.press("#task-title", "Enter")
    await expect(column(two, "todo")).to_contain_text("Ring the bell")
    await card_button(two, "Move right: Ring the bell").click()
    await expect(column(one, "doing")).to_contain_text("Ring the bell")
    await expect(column(one, "todo")).not_to_contain_text("Ring the bell")
    await expect(one.locator("#news")).to_contain_text("Ring the bell: moved to Doing, by")
    bell = card_button(one, "Move right: Ring the bell")
    await bell.focus()
    await one.keyboard.press("ArrowRight")
    await expect(column(two, "done")).to_contain_text("Ring the bell")
    # the focus moves with the card
    left = card_button(one, "Move left: Ring the bell")
    await expect(left).to_be_focused()
    await one.keyboard.press("ArrowLeft")
    await expect(column(two, "doing")).to_contain_text("Ring the bell")

    # drag the card; it moves animated in the other window
    await two.evaluate(
        "document.addEventListener('animationstart', () => document.body.dataset.flashed = 1)"
    )
    card = one.locator("#you .card", has_text="Ring the bell")
    await expect(column(one, "doing")).to_contain_text("Ring the bell")
    await card.evaluate(
        "card => Promise.all(card.getAnimations().map((each) => each.finished.catch(() => {})))"
    )
    await card.drag_to(one.locator("#you [data-column=todo]"))
    await expect(column(two, "todo")).to_contain_text("Ring the bell")
    await expect(two.locator("body[data-flashed]")).to_be_visible()

    # a filter is another live list that cards enter and leave
    await one.fill("#words", "BELL")
    await expect(one.locator("#you .card")).to_have_count(1)
    await card_button(two, "Move right: Ring the bell").click()
    await expect(column(one, "doing").locator(".card")).to_have_count(1)
    await two.fill("#task-title", "Another bell")
    await two.press("#task-title", "Enter")
    await expect(column(one, "todo")).to_contain_text("Another bell")
    await one.fill("#words", "")
    await expect(column(one, "done")).to_contain_text("Update the price list")
    await one.check("#mine")
    await expect(one.locator("#you .card")).to_have_count(0)
    await one.uncheck("#mine")
    await card_button(one, "Move right: Review the search page").click()
    await one.check("#mine")
    await expect(one.locator("#you .card")).to_have_count(1)
    await expect(one.locator("#you .card .who")).to_have_text(me)
    await card_button(two, "Move left: Review the search page").click()
    await expect(one.locator("#you .card")).to_have_count(0)
    await one.uncheck("#mine")

    # posts
    await expect(two.locator("#posts li")).to_have_count(2)
    await one.check("#drafts")
    await one.get_by_role("button", name="Publish: Notes for the next meeting").click()
    await expect(two.locator("#posts")).to_contain_text("Notes for the next meeting")
    await one.get_by_role("button", name="Unpublish: Version 2.4 is released").click()
    await expect(two.locator("#posts")).not_to_contain_text("Version 2.4 is released")
    await expect(one.locator("#posts .draft")).to_have_text(re.compile("Version 2.4 is released"))
    await two.fill("#post-title", "<i>Less</i> noise")
    await two.press("#post-title", "Enter")
    await expect(one.locator("#posts")).to_contain_text("<i>Less</i> noise")
    await expect(one.locator("#log")).to_contain_text("inserted “<i>Less</i> noise”")

    # a change by another process
    demo.shell("Task.objects.create(title='From a shell')")
    await expect(column(one, "todo")).to_contain_text("From a shell")
    await card_button(two, "Delete: From a shell").click()
    await expect(one.locator("#you .columns")).not_to_contain_text("From a shell")


async def test_cards_are_sorted_by_priority(windows, demo):
    from playwright.async_api import expect

    page = await windows.open(viewport=DESK)
    first, early, late = "Sort me first", "Sort me early", "Sort me late"
    for title, priority, age in ((first, 2, 1), (early, 1, 2), (late, 0, 3)):
        demo.execute(
            "INSERT INTO board_task (title, column, priority, moved_at) "
            "VALUES (?, 'todo', ?, datetime('now', ?))",
            *(title, priority, f"-{age} seconds"),
        )

    async def expect_order(*expected):
        for viewer in ("you", "second"):
            titles = column(page, "todo", viewer).locator(".title", has_text="Sort me")
            await expect(titles).to_have_text(expected)

    await expect_order(first, early, late)
    # with the mouse in one viewer; the time of the last move stays the same
    await card_button(page, f"Priority low: {late}").click()
    await expect_order(first, early, late)
    await card_button(page, f"Priority normal: {late}").click()
    await expect_order(first, late, early)
    for viewer in ("you", "second"):
        await expect(page.locator(f"#{viewer} .change")).to_have_text(
            f"Last change: {late} has priority high"
        )
    # with the keyboard in the other; the focus moves with the card
    await card_button(page, f"Priority high: {first}", "second").focus()
    await page.keyboard.press("Enter")
    await expect_order(late, early, first)
    await expect(card_button(page, f"Priority low: {first}", "second")).to_be_focused()
    demo.execute("DELETE FROM board_task WHERE title LIKE 'Sort me%'")
    await expect_order()


async def test_other_priorities_are_refused(windows, demo):
    context = await windows.browser.new_context()
    await context.request.get(demo.url)
    cookies = {cookie["name"]: cookie["value"] for cookie in await context.cookies()}
    ((pk,),) = demo.execute("SELECT min(id) FROM board_task")
    for priority in (3, -1, "high", None, [1]):
        response = await context.request.post(
            f"{demo.url}api/tasks/{pk}/priority",
            data={"priority": priority},
            headers={"X-CSRFToken": cookies["csrftoken"]},
        )
        assert (await response.json())["error"] == "No such priority."


async def test_heads_of_columns_count_the_cards_that_match_the_filter(windows, demo):
    from playwright.async_api import expect

    page = await windows.open(viewport=DESK)
    counts = page.locator("#you .count")
    all_counts = await counts.all_inner_texts()
    for viewer in ("you", "second"):
        for name, count in zip(("todo", "doing", "done"), all_counts, strict=True):
            await expect(column(page, name, viewer).locator(".card")).to_have_count(int(count))
    await page.fill("#words", "Count me")
    await expect(counts).to_have_text(["0", "0", "0"])
    await expect(page.locator("#second .count")).to_have_text(all_counts)
    demo.execute(
        "INSERT INTO board_task (title, column, moved_at) "
        "SELECT 'Count me', value, datetime('now') FROM json_each('[\"todo\", \"done\", \"done\"]')"
    )
    await expect(counts).to_have_text(["1", "0", "2"])
    await card_button(page, "Move right: Count me").first.click()
    await expect(counts).to_have_text(["0", "1", "2"])
    demo.execute("DELETE FROM board_task WHERE title = 'Count me'")
    await expect(counts).to_have_text(["0", "0", "0"])
    await expect(page.locator("#second .count")).to_have_text(all_counts)


async def test_board_shows_changes_of_the_admin(windows):
    from playwright.async_api import expect

    one = await windows.open()
    two = await windows.open()
    # in the same browser, the visitor's session becomes the admin's; the board stays live
    async with one.context.expect_page() as opened:
        await one.get_by_role("navigation").get_by_role("link", name="Admin").click()
    admin = await opened.value
    await admin.fill("#id_username", "admin")
    await admin.fill("#id_password", "admin")
    await admin.press("#id_password", "Enter")
    await admin.get_by_role("link", name="Tasks").first.click()
    await admin.get_by_role("link", name="Update the price list").click()
    await admin.fill("#id_title", "Update the long price list")
    await admin.press("#id_title", "Enter")
    for board in (one, two):
        await expect(column(board, "done")).to_contain_text("Update the long price list")
    await expect(one.locator("[data-me]")).to_have_text("admin")
    await card_button(one, "Move left: Update the long price list").click()
    await expect(column(two, "doing")).to_contain_text("Update the long price list")

    # the second viewer belongs to the new session, too
    await expect(one.locator("#second .words")).to_have_text("live")
    second = await one.locator("#second [data-name]").inner_text()
    await card_button(one, "Move right: Update the long price list", "second").click()
    for board in (one, two):
        card = column(board, "done").locator(".card", has_text="Update the long price list")
        await expect(card.locator(".who")).to_have_text(second)


async def test_cards_follow_the_name_of_their_assignee(windows, demo):
    from playwright.async_api import expect

    one = await windows.open(viewport=DESK)
    two = await windows.open(viewport=PHONE)
    title = "Check the links in the docs"

    def assignees(page, viewer):
        card = page.locator(f"#{viewer} .card", has_text=title)
        return card.locator(".who")

    names = ["Heron", "Grey heron"]
    for old, new in (names, reversed(names)):
        for page in (one, two):
            for viewer in ("you", "second"):
                await expect(assignees(page, viewer)).to_have_text(old)
        await one.get_by_role("button", name="Rename Heron").click()
        for page in (one, two):
            for viewer in ("you", "second"):
                await expect(assignees(page, viewer)).to_have_text(new)
                await expect(page.locator(f"#{viewer} .change")).to_have_text(
                    f"Last change: {old} is now {new}"
                )

    # in the admin
    admin = await two.context.new_page()
    await admin.goto(f"{demo.url}admin/login/?next=/admin/auth/user/")
    await admin.fill("[name=username]", "admin")
    await admin.fill("[name=password]", "admin")
    await admin.click("[type=submit]")
    await admin.get_by_role("link", name="Heron", exact=True).click()
    await admin.fill("#id_username", "Stork")
    await admin.press("#id_username", "Enter")
    await expect(assignees(one, "you")).to_have_text("Stork")
    await expect(assignees(one, "second")).to_have_text("Stork")
    demo.shell("User.objects.filter(username='Stork').update(username='Heron')")
    await expect(assignees(one, "you")).to_have_text("Heron")


async def test_chat_shows_members_typing_and_messages(windows):
    from playwright.async_api import expect

    one = await windows.open("chat/", viewport=DESK)
    me = await one.locator("[data-me]").inner_text()
    async with one.context.expect_page() as opened:
        await one.get_by_role("link", name="a second visitor").click()
    other = await opened.value
    phone = await windows.open("chat/", viewport=PHONE)
    other_name = await other.locator("[data-me]").inner_text()
    assert other_name != me

    # members
    for page in (one, other, phone):
        await expect(page.locator("#people")).to_have_text("3")
        await expect(page.locator("#members")).to_contain_text(other_name)
    await expect(other.locator("#members")).to_contain_text(f"{other_name} (you)")
    beside = await windows.open("chat/", beside=one)  # two windows of one user are one member
    await expect(beside.locator("#people")).to_have_text("3")
    await expect(one.locator("#people")).to_have_text("3")
    await beside.close()

    # typing starts and ends
    await one.locator("#message").press_sequentially("Hello <b>every")
    await expect(phone.locator("#typing")).to_have_text(f"{me} is typing…")
    await expect(one.locator("#typing")).to_have_text("")
    await expect(phone.locator("#typing")).to_have_text("", timeout=6000)
    await one.locator("#message").press_sequentially("one</b>!")

    # messages are shown as text, the own one with its latency
    await one.press("#message", "Enter")
    for page in (other, phone):
        message = page.locator("#messages li", has_text="Hello <b>everyone</b>!")
        await expect(message.locator(".name")).to_have_text(me)
    mine = one.locator("#messages li", has_text="Hello <b>everyone</b>!")
    await expect(mine.locator("small")).to_have_text(re.compile(r"round trip \d+ ms"))
    await expect(mine).to_have_count(1)
    await other.fill("#message", "Ahoy")
    await other.press("#message", "Enter")
    await expect(one.locator("#messages li").last).to_contain_text("Ahoy")

    # a member who joins later receives the history
    late = await windows.open("chat/")
    await expect(late.locator("#messages li").nth(-2)).to_contain_text("Hello <b>everyone</b>!")
    await expect(late.locator("#messages li").last).to_contain_text("Ahoy")
    await expect(one.locator("#people")).to_have_text("4")
    # a member who leaves is removed after the grace period
    await late.context.close()
    await expect(one.locator("#people")).to_have_text("3", timeout=20_000)


async def test_load_shows_rate_and_latency(windows):
    from playwright.async_api import expect

    one = await windows.open("load/", viewport=DESK)
    two = await windows.open("load/", viewport=PHONE)
    await one.get_by_role("button", name="10/s").click()
    for page in (one, two):
        await expect(page.get_by_role("button", name="10/s")).to_have_attribute(
            "aria-pressed", "true"
        )
        await expect(page.locator("#total")).to_have_text(re.compile(r"[2-9]\d"), timeout=15_000)
        await expect(page.locator("#median")).to_have_text(re.compile(r"[\d.]+ ms"))
        await expect(page.locator("#events svg")).to_have_attribute(
            "aria-label", re.compile(r"at most [1-9]")
        )
        await expect(page.locator("#latencies svg")).to_have_attribute(
            "aria-label", re.compile(r"between \d+ and \d+ milliseconds")
        )

    # the time until a page that is opened during the changes is live
    late = await windows.open("load/")
    await expect(late.locator("#total")).to_have_text(re.compile(r"[1-9]\d*"))
    marks = "name => performance.getEntriesByName(name)[0].startTime"
    live = await late.evaluate(marks, "live")
    first = await late.evaluate(marks, "first-event")
    print(f"\nLive {live:.0f} ms, first event {first:.0f} ms after the navigation began.")
    assert first < 3000  # the aim is 1 s on an idle machine

    await two.get_by_role("button", name="Off").click()
    await expect(one.get_by_role("button", name="Off")).to_have_attribute("aria-pressed", "true")
    await expect(one.locator("#rate")).to_have_text("0")


async def test_reconnect_loses_no_change(windows):
    from playwright.async_api import expect

    disconnected = await windows.open("reconnect/", viewport=PHONE)
    beside = await windows.open("reconnect/", beside=disconnected)
    other = await windows.open("reconnect/", viewport=DESK)
    await disconnected.get_by_role("button", name="Disconnect me").click()
    for page in (disconnected, beside):
        await expect(page.locator("#state")).to_have_text(re.compile("disconnected|connecting"))
        await expect(page.locator(".squares .made").first).to_be_visible()
    for page in (disconnected, beside, other):
        await expect(page.locator("#verdict")).to_contain_text(
            "Nothing was lost: 96 changes made, 96 received, 0 twice.", timeout=30_000
        )
        await expect(page.locator("#missing")).to_have_text("0")
        await expect(page.locator(".squares .made")).to_have_count(0)
    for page in (disconnected, beside):
        await expect(page.locator("#resumed")).to_have_text("yes")
        await expect(page.locator("#steps")).to_contain_text(
            "resumed after the last received change"
        )
        assert await page.locator(".squares .late").count() > 20
    await expect(other.locator("#verdict")).to_contain_text("This page was not disconnected.")
    assert await other.locator(".squares .live").count() == 96


async def test_reconnect_requires_csrf_token_and_post(windows, demo):
    page = await windows.open("reconnect/")
    response = await page.context.request.post(demo.url + "api/reconnect", data={})
    assert response.status == 403
    response = await page.context.request.get(demo.url + "api/reconnect")
    assert response.status == 405


async def test_permissions_show_own_parcels_only(windows):
    from playwright.async_api import expect

    one = await windows.open("permissions/", viewport=DESK)
    two = await windows.open("permissions/", viewport=PHONE)

    def pane(page, name):
        return page.locator(f"[data-who={name}]")

    for page in (one, two):
        await expect(pane(page, "ada").locator(".parcels li")).to_have_text(
            ["Box of books North", "Camera lens South"]
        )
        await expect(pane(page, "ben").locator(".parcels li")).to_have_text(["Desk lamp North"])
        await expect(pane(page, "dora").locator(".parcels li")).to_have_count(4)

    # a new parcel is visible to the dispatcher only
    await one.fill("#parcel-title", "Secret letters")
    await one.press("#parcel-title", "Enter")
    owner = two.get_by_label("Owner of Secret letters")
    await expect(owner).to_be_visible()

    # assign it to one courier, then to the other
    await owner.select_option("ada")
    await expect(pane(one, "ada").locator(".parcels")).to_contain_text("Secret letters")
    await expect(pane(one, "ada").locator(".received li").first).to_have_text(
        "entered Secret letters"
    )
    await owner.select_option("ben")
    await expect(pane(one, "ben").locator(".parcels")).to_contain_text("Secret letters")
    await expect(pane(one, "ada").locator(".parcels")).not_to_contain_text("Secret letters")
    await expect(pane(one, "ada").locator(".received li").first).to_have_text(
        re.compile(r"left parcel \d+ \(only its id\)")
    )

    # deletion is not visible to the other courier
    shown = await pane(one, "ada").locator(".received li").all_inner_texts()
    await one.get_by_role("button", name="Delete: Secret letters").click()
    await expect(pane(two, "ben").locator(".received li").first).to_have_text(
        "deleted Secret letters"
    )
    await expect(pane(two, "ben").locator(".parcels")).not_to_contain_text("Secret letters")
    await expect(pane(two, "dora").locator(".parcels li")).to_have_count(4)
    assert await pane(one, "ada").locator(".received li").all_inner_texts() == shown


async def test_parcels_of_a_team_come_and_go_with_the_membership(windows, demo):
    from playwright.async_api import expect

    one = await windows.open("permissions/", viewport=DESK)
    two = await windows.open("permissions/", viewport=PHONE)
    sockets = []
    one.on("websocket", lambda socket: sockets.append(socket.url))
    ben = one.locator("[data-who=ben]")
    received = ben.locator(".received li")
    own, of_team = "Desk lamp North", ["Camera lens South", "Desk lamp North", "Garden chair South"]
    await expect(ben.locator(".parcels li")).to_have_text([own])

    # with a button
    await ben.get_by_role("button", name="South").click()
    await expect(ben.locator(".parcels li")).to_have_text(of_team)
    await expect(received.first).to_have_text("moved in: Camera lens, Garden chair")
    for page in (one, two):
        button = page.locator("[data-who=ben]").get_by_role("button", name="South")
        await expect(button).to_have_attribute("aria-pressed", "true")
    # an own parcel stays, whatever the team
    await ben.get_by_role("button", name="North").click()
    await expect(ben.locator(".parcels li")).to_have_text(["Box of books North", *of_team])
    await ben.get_by_role("button", name="North").click()
    await expect(ben.locator(".parcels li")).to_have_text(of_team)

    # in the admin
    admin = await two.context.new_page()
    await admin.goto(f"{demo.url}admin/login/?next=/admin/board/team/")
    await admin.fill("[name=username]", "admin")
    await admin.fill("[name=password]", "admin")
    await admin.click("[type=submit]")
    await admin.get_by_role("link", name="South", exact=True).click()
    row = admin.locator(".has_original", has=admin.locator("option:checked", has_text="ben"))
    await row.locator("input[type=checkbox]").check()
    await admin.click("[name=_save]")
    await admin.locator(".success").wait_for()
    await expect(ben.locator(".parcels li")).to_have_text([own])
    await expect(received.first).to_have_text(re.compile(r"moved out: parcel \d+, parcel \d+ "))
    await expect(ben.locator(".dot")).to_have_attribute("data-state", "live")
    assert sockets == []  # all of this over the first connections

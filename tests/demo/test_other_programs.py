"""Changes that other programs make in the demo's database are shown on the first page."""

import shutil
import subprocess

import pytest

from .test_pages import DESK, card_button, column

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]
CARD = "Review the search page"
SOON = 5000  # ms; the log is read once per second


async def test_row_that_sqlite3_writes_appears_moves_and_disappears(windows, demo):
    from playwright.async_api import expect

    page = await windows.open(viewport=DESK)
    demo.execute(
        "INSERT INTO board_task (title, column, moved_at) "
        "VALUES ('From SQL', 'todo', datetime('now'))",
    )
    for viewer in ("you", "second"):
        todo = column(page, "todo", viewer)
        await expect(todo).to_contain_text("From SQL", timeout=SOON)
        card = todo.locator(".card", has_text="From SQL")
        await expect(card.locator(".who")).to_have_text("Unassigned")
    demo.execute("UPDATE board_task SET column = 'doing' WHERE title = 'From SQL'")
    await expect(column(page, "doing")).to_contain_text("From SQL", timeout=SOON)
    await expect(page.locator("#you .change")).to_contain_text("From SQL moved to Doing")
    await expect(column(page, "todo")).not_to_contain_text("From SQL")
    demo.execute("DELETE FROM board_task WHERE title = 'From SQL'")
    await expect(page.locator("#you .columns")).not_to_contain_text("From SQL", timeout=SOON)


@pytest.mark.parametrize("program", ["sqlite3", "Python"])
async def test_shown_command_moves_a_card(windows, demo, program):
    from playwright.async_api import expect

    if program == "sqlite3" and shutil.which("sqlite3") is None:
        pytest.skip("needs the sqlite3 shell")
    page = await windows.open(viewport=DESK, permissions=["clipboard-read", "clipboard-write"])
    copy = page.get_by_role("button", name=f"Copy the command with {program}")
    await copy.click()
    await expect(copy).to_have_text("Copied")
    command = await page.evaluate("navigator.clipboard.readText()")
    assert str(demo.database) in command
    # in a folder that is not that of the demo
    subprocess.run(command, shell=True, cwd=demo.database.parent, check=True, timeout=20)
    await expect(column(page, "done")).to_contain_text(CARD, timeout=SOON)
    card = page.locator("#you [data-column=done] .card", has_text=CARD)
    await expect(card.locator(".who")).to_have_text("SQL")
    await card_button(page, f"Move left: {CARD}").click()
    await expect(column(page, "doing")).to_contain_text(CARD)


async def test_command_is_selected_if_the_browser_does_not_copy(windows):
    page = await windows.open(viewport=DESK)
    await page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(); }")
    await page.get_by_role("button", name="Copy the command with Python").click()
    selected = await page.evaluate("getSelection().toString()")
    assert selected.startswith("python3 -c ")

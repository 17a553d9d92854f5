"""Make docs/images/demo.png: a few lines of code, and the demo's two viewers, from a running demo.

    make demo
    python docs/images/make_demo_picture.py http://127.0.0.1:8000/

It needs Playwright and the system's Chromium, like the browser tests.
"""

import base64
import shutil
import sys
from html import escape
from pathlib import Path

from playwright.sync_api import Browser, expect, sync_playwright

TARGET = Path(__file__).parent / "demo.png"
CARD = "Write the release notes"
WIDTH = 1280  # CSS pixels
SCALE = 1.5  # pixels of the picture per CSS pixel

STEPS = (
    (
        "1. Name the models",
        """
# settings.py
COCOBASE_REALTIME = {
    "COLLECTIONS": {
        "tasks": "board.Task",
    },
}
""",
    ),
    (
        "2. Keep a list on the page",
        """
// board.js
const cards = realtime.live("tasks", {
  filters: { column: "doing" },
  order: "-priority,-moved_at",
  limit: 20,
});
cards.subscribe(render);
""",
    ),
    (
        "3. Save a row, anywhere in Django",
        """
# views.py, the admin, a shell
task.column = "doing"
task.save()

# the card moves for every viewer
""",
    ),
)
STYLE = """
* { box-sizing: border-box; margin: 0; }
body { padding: 24px 36px; background: #f6f4ef; color: #22302f;
  font: 16px/1.5 system-ui, sans-serif; }
.code { display: grid; grid-template-columns: repeat(3, 1fr); gap: 18px; margin-bottom: 20px; }
.code div { display: grid; grid-template-rows: auto 1fr; }
h2 { font-size: 18px; font-weight: 600; margin-bottom: 6px; }
pre { background: #1c2526; color: #e6ece9; border-radius: 12px; padding: 12px 16px;
  font: 14.5px/1.55 ui-monospace, Menlo, Consolas, monospace; }
img { display: block; width: 1208px; }
pre i { color: #a3b4b0; }
pre b { color: #7fd6c8; font-weight: 400; }
"""


def photograph_viewers(browser: Browser, url: str) -> bytes:
    """Move a card in one viewer, and return a picture of both while it is highlighted."""
    # with reduced motion, the highlight does not fade, and no other card moves
    context = browser.new_context(
        viewport={"width": WIDTH, "height": 1000},
        device_scale_factor=SCALE,
        reduced_motion="reduce",
        color_scheme="light",
    )
    page = context.new_page()
    page.goto(url)
    page.locator("body[data-ready]").wait_for()
    for latency in page.locator(".viewer .latency").all():
        expect(latency).not_to_be_empty()
    card = page.locator(f".viewer .card:has-text('{CARD}')").first
    if card.locator("xpath=ancestor::*[@data-column='todo']").count() == 0:
        raise SystemExit(f"Move the card {CARD!r} to the column To do first.")
    card.locator("[data-act=right]").dispatch_event("click")
    for viewer in page.locator(".viewer").all():
        expect(viewer.locator("[data-column=doing] .card.flash")).to_contain_text(CARD)
    picture = page.locator(".viewers").screenshot()
    context.close()
    return picture


def highlight(code: str) -> str:
    """Return the code as HTML, with its comments and strings in another color."""
    lines = []
    for line in code.strip().splitlines():
        parts = line.split('"')
        marked = [
            escape(part) if i % 2 == 0 else f"<b>&quot;{escape(part)}&quot;</b>"
            for i, part in enumerate(parts)
        ]
        text = "".join(marked)
        for sign in ("# ", "// "):
            before, found, comment = text.partition(sign)
            if found:
                text = f"{before}<i>{sign}{comment}</i>"
        lines.append(text)
    return "\n".join(lines)


def main(url: str) -> None:
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        viewers = base64.b64encode(photograph_viewers(browser, url)).decode()
        steps = "".join(
            f"<div><h2>{title}</h2><pre>{highlight(code)}</pre></div>" for title, code in STEPS
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": 100}, device_scale_factor=SCALE)
        page.set_content(
            f"<style>{STYLE}</style><div class=code>{steps}</div>"
            f'<img src="data:image/png;base64,{viewers}">'
        )
        page.screenshot(path=TARGET, full_page=True)
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/")

"""Layout, keyboard access, accessibility and security policy of the demo's pages."""

import re

import pytest

from tests.support.npm import install_package

from .conftest import picture

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]
AXE = "4.10.3"
PAGES = (
    *("", "chat/", "reconnect/", "load/", "permissions/"),
    *("files/", "files/docs/tutorial.md", "files/demo_project/board/models.py"),
)


def read_axe():
    """Return the source of axe-core."""
    return (
        install_package("axe-core", AXE, required_by="REQUIRE_BROWSER") / "axe.min.js"
    ).read_text()


async def show_content(page, path):
    """Bring the page into a state with content."""
    from playwright.async_api import expect

    if path == "":
        for viewer in ("#you", "#second"):
            await expect(page.locator(f"{viewer} .card").first).to_be_visible()
        await expect(page.locator("#posts li").first).to_be_visible()
    elif path == "chat/":
        await page.fill("#message", "Is the new version online?")
        await page.press("#message", "Enter")
        await expect(page.locator("#messages li").last).to_contain_text("round trip")
    elif path == "load/":
        await page.get_by_role("button", name="50/s").click()
        await expect(page.locator("#total")).to_have_text(re.compile(r"\d\d\d"), timeout=15_000)
    elif path == "reconnect/":
        await page.locator("#start").click()
        await expect(page.locator(".squares .made").first).to_be_visible(timeout=15_000)
    elif path == "permissions/":
        await expect(page.locator("[data-who=ben] .parcels li").first).to_be_visible()
        await page.get_by_label("Owner of Garden chair").select_option("ben")
        await expect(
            page.locator("[data-who=ben] .received li", has_text="entered").first
        ).to_be_visible()
        await page.get_by_label("Owner of Garden chair").select_option("")
        await expect(page.locator("[data-who=ben] .parcels li")).to_have_count(1)


@pytest.mark.parametrize("path", PAGES)
async def test_page_fits_screens_and_passes_axe(windows, path):
    """No horizontal overflow and no serious finding of axe-core, in dark and light mode."""
    page = await windows.open(path, reduced_motion="reduce")
    await show_content(page, path)
    await page.evaluate(read_axe())
    for scheme in ("light", "dark"):
        for width in (1280, 360):
            await page.emulate_media(color_scheme=scheme)
            await page.set_viewport_size({"width": width, "height": 800})
            needed = await page.evaluate("document.documentElement.scrollWidth")
            assert needed <= width, (scheme, width)
            await picture(page, f"{path.strip('/').replace('/', '-') or 'board'}-{scheme}-{width}")
            result = await page.evaluate("axe.run()")
            assert len(result["passes"]) > 10
            serious = [
                (violation["id"], [node["html"] for node in violation["nodes"]][:5])
                for violation in result["violations"]
                if violation["impact"] in ("serious", "critical")
            ]
            assert serious == [], (scheme, width)


async def test_controls_are_reachable_by_tab_with_visible_focus(windows):
    page = await windows.open()
    await page.locator(".card").first.wait_for()
    reached = []
    for _ in range(90):
        await page.keyboard.press("Tab")
        name, outline = await page.evaluate(
            """() => {
                const at = document.activeElement;
                const label = at.labels?.[0]?.textContent;
                const name = at.getAttribute("aria-label") ?? label ?? at.textContent;
                const outline = getComputedStyle(at).outlineStyle;
                return [at === document.body ? null : name.trim(), outline];
            }"""
        )
        if name is None:
            break
        assert outline != "none", name
        reached.append(name)
    assert reached[0] == "Skip to the page"
    for name in ("Board", "Filter cards by title", "moved by me", "New card", "New post"):
        assert name in reached
    assert any(name.startswith("Move right: ") for name in reached)
    assert any(name.startswith("Delete: ") for name in reached)
    assert any(name.startswith("Unpublish: ") for name in reached)


async def test_pages_have_strict_content_security_policy(windows, demo):
    page = await windows.open()
    for path in PAGES:
        response = await page.context.request.get(demo.url + path)
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        html = await response.text()
        assert " style=" not in html
        assert "<style" not in html
        assert not re.search(r"<script(?![^>]* src=)", html)


async def test_cards_do_not_move_with_reduced_motion(windows):
    from playwright.async_api import expect

    for motion, glides in (("no-preference", True), ("reduce", False)):
        page = await windows.open(reduced_motion=motion)
        await page.evaluate(
            """() => {
                window.glides = 0;
                const animate = Element.prototype.animate;
                Element.prototype.animate = function (...how) {
                    const isCard = this.textContent.includes("release notes");
                    if (how[1].id === "glide" && isCard) glides++;
                    return animate.apply(this, how);
                };
            }"""
        )
        await page.locator("body[data-ready]").wait_for()
        you = page.locator("#you")
        await you.get_by_role("button", name="Move right: Write the release notes").click()
        moved = you.locator("[data-column=doing] .card", has_text="Write the release notes")
        await expect(moved).to_be_visible()
        # from one column to the other, not merely up or down
        assert (await page.evaluate("window.glides") > 0) is glides
        await you.get_by_role("button", name="Move left: Write the release notes").click()
        await expect(moved).to_have_count(0)

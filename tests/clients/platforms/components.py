"""The components of the guide for frameworks, compiled for a server and for browsers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.clients.platforms.runtime import find_node
from tests.support.blocks import code_blocks
from tests.support.npm import install_packages
from tests.support.servers import ROOT

GUIDE = ROOT / "docs" / "how-to" / "frameworks.md"
HARNESS = Path(__file__).parent / "frameworks"
FRAMEWORKS = ["react", "vue", "svelte"]
PACKAGES = {
    "react": "19.2.0",
    "react-dom": "19.2.0",
    "vue": "3.5.22",
    "svelte": "5.39.0",
    "esbuild": "0.25.10",
}
# the name of an example's file, which is a comment in its first line
FILE_NAME = re.compile(r"(?:// |<!-- )(\S+\.(?:jsx?|vue|svelte))\b")


def write_examples(framework: str, folder: Path) -> None:
    """Write the examples that a section of the guide names by file, and those of all sections."""
    sections = _sections("\n## ")
    left_out = [*FRAMEWORKS, "next.js, nuxt and sveltekit"]
    _write(
        [text for name, text in sections.items() if name not in left_out or name == framework],
        folder,
    )


def write_page(title: str, folder: Path) -> None:
    """Write the example of the section about Next.js, Nuxt or SvelteKit."""
    _write([_sections("\n### ")[title.lower()]], folder)


def _sections(heading: str) -> dict[str, str]:
    parts = GUIDE.read_text().split(heading)
    return {part.split("\n", 1)[0].lower(): part for part in parts}


def _write(sections: list[str], folder: Path) -> None:
    for language in ("js", "jsx", "html"):
        for block in code_blocks(GUIDE, language):
            name = FILE_NAME.match(block)
            if name is not None and any(block in section for section in sections):
                file = folder / name[1]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block)


def build(framework: str, folder: Path) -> None:
    """Compile the examples for one framework in a folder, to `server.mjs` and `browser.js`."""
    installed = install_packages(PACKAGES, required_by="REQUIRE_SERVERS")
    shutil.copytree(HARNESS, folder, dirs_exist_ok=True)
    write_examples(framework, folder)
    (folder / "node_modules").mkdir()
    for package in installed.iterdir():
        (folder / "node_modules" / package.name).symlink_to(package)
    (folder / "node_modules" / "django-cocobase-realtime").symlink_to(ROOT)
    command = ["node", "--no-warnings", "build.mjs", framework]
    completed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (completed.returncode, completed.stderr) == (0, "")


def render(folder: Path) -> dict[str, Any]:
    """Render the components in Node, and report what that leaves behind; see `measure.mjs`."""
    completed = subprocess.run(
        [find_node(22), "--expose-gc", "--no-warnings", "measure.mjs"],
        cwd=folder,
        env={**os.environ, "NODE_ENV": "production"},
        capture_output=True,
        text=True,
        timeout=60,  # the process must end by itself
        check=False,
    )
    assert (completed.returncode, completed.stderr) == (0, "")
    report: dict[str, Any] = json.loads(completed.stdout)
    return report

"""Applications of Next.js, Nuxt and SvelteKit with the components of the guide for frameworks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.clients.drivers import STATIC
from tests.clients.platforms.components import write_examples, write_page
from tests.clients.platforms.runtime import find_node
from tests.support.npm import install_packages
from tests.support.servers import ROOT, Server

FILES = Path(__file__).parent / "applications"
BUILD_TIMEOUT = 300.0
QUIET = {"NEXT_TELEMETRY_DISABLED": "1", "NUXT_TELEMETRY_DISABLED": "1", "NODE_ENV": "production"}
# the URL that the guide names for development
DOCUMENTED_URL = 'new Realtime({ url: "http://localhost:8000/realtime/" })'


@dataclass(frozen=True)
class Framework:
    """How an application is built and started."""

    # the section of the guide
    title: str
    # the section that has the components, and the folder for them
    components: str
    folder: str
    packages: Mapping[str, str]
    # arguments of Node
    build: tuple[str, ...]
    start: tuple[str, ...]


FRAMEWORKS = {
    "next": Framework(
        "Next.js",
        "react",
        ".",
        {"next": "16.4.6", "react": "19.2.0", "react-dom": "19.2.0"},
        build=("node_modules/next/dist/bin/next", "build"),
        start=("node_modules/next/dist/bin/next", "start"),
    ),
    "nuxt": Framework(
        "Nuxt",
        "vue",
        "components",
        {"nuxt": "3.21.11"},
        build=("node_modules/nuxt/bin/nuxt.mjs", "build"),
        start=(".output/server/index.mjs",),
    ),
    "sveltekit": Framework(
        "SvelteKit",
        "svelte",
        "src/lib",
        {
            "@sveltejs/kit": "2.70.4",
            "@sveltejs/adapter-node": "5.5.7",
            "@sveltejs/vite-plugin-svelte": "6.2.3",
            "svelte": "5.57.3",
            "vite": "7.3.8",
        },
        build=("node_modules/vite/bin/vite.js", "build"),
        start=("build/index.js",),
    ),
}


def build(name: str, folder: Path, port: int) -> str:
    """Build an application whose client connects to a port. Returns what the tools have printed."""
    framework = FRAMEWORKS[name]
    installed = install_packages(framework.packages, required_by="REQUIRE_APPLICATIONS")
    shutil.copytree(FILES / name, folder, dirs_exist_ok=True)
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    # hard links: bundlers resolve symbolic ones, and refuse what is outside of the application
    modules = folder / "node_modules"
    shutil.copytree(installed, modules, symlinks=True, copy_function=_link)
    _copy_client(modules / "django-cocobase-realtime")
    components = folder / framework.folder
    write_examples(framework.components, components)
    write_page(framework.title, folder)
    _edit(components / "db.js", port)
    if name == "next":
        for file in ("posts.jsx", "members.jsx"):
            (folder / file).write_text('"use client";\n' + (folder / file).read_text())
    completed = subprocess.run(
        [find_node(22), *framework.build],
        cwd=folder,
        env={**os.environ, **QUIET},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_TIMEOUT,
        check=False,
    )
    assert completed.returncode == 0, completed.stdout
    return completed.stdout


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)


def _copy_client(package: Path) -> None:
    """Copy what the npm package contains."""
    for file in (ROOT / "package.json", STATIC / "realtime.js", STATIC / "realtime.d.ts"):
        target = package / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)


def _edit(file: Path, port: int) -> None:
    """Write the address of the server into `db.js`, as the guide describes it."""
    options = DOCUMENTED_URL.replace("localhost:8000", f"127.0.0.1:{port}")
    code = file.read_text()
    assert "new Realtime()" in code
    file.write_text(code.replace("new Realtime()", options))


class Application(Server):
    """The production server of an application that was built in a folder."""

    def __init__(self, name: str, folder: Path) -> None:
        self.report = folder / "probe.json"
        probe = (FILES / "probe.mjs").as_uri()
        super().__init__(
            ["env", "-C", str(folder), find_node(22), "--import", probe, *FRAMEWORKS[name].start],
            {**QUIET, "HOST": "127.0.0.1", "PROBE_REPORT": str(self.report)},
        )
        self.env["PORT"] = str(self.port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def render(self) -> str:
        """Return the HTML of the page."""
        with urllib.request.urlopen(self.url, timeout=20) as response:
            html: str = response.read().decode()
        return html

    def measure(self) -> dict[str, Any]:
        """Return the number of connections that were opened, and what is in use."""
        self.report.unlink(missing_ok=True)
        self.signal(signal.SIGUSR2)
        deadline = time.monotonic() + 10
        while not self.report.exists():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)
        report: dict[str, Any] = json.loads(self.report.read_text())
        return report

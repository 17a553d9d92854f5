"""Run the JavaScript client in virtual time, in one Node process for all histories."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.clients.drivers import STATIC, require_node_with_websocket

Report = dict[str, Any]
DRIVER = Path(__file__).parent / "driver.mjs"


class JavaScriptClient:
    """A client that is driven by commands, which `run` executes."""

    language = "javascript"

    def __init__(self) -> None:
        self.now = 0.0
        self._commands: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [require_node_with_websocket(), str(DRIVER), str(STATIC / "realtime.js")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def create(self, **options: Any) -> None:
        """Start a new history with a new client."""
        self.now = 0.0
        self._commands = [{"op": "create", **options}]

    def do(self, op: str, **fields: Any) -> None:
        """Add a command for the next `run`."""
        self._commands.append({"op": op, **fields})

    def run(self, until: float) -> list[Report]:
        """Execute the commands, and let time pass; return early if the client sends something."""
        commands, self._commands = self._commands, []
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"commands": commands, "until": until}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "The driver of the JavaScript client has ended."
        answer = json.loads(line)
        self.now = answer["now"]
        reports: list[Report] = answer["reports"]
        return reports

    def finish(self) -> None:
        """End a history."""

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()

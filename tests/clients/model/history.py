"""Random histories: what the program, the server and the network do, step by step."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from tests.clients.model import lists, rights  # noqa: F401  (they have actions)
from tests.clients.model.actions import ACTIONS, WEIGHTS
from tests.clients.model.network import ROUNDING
from tests.clients.model.program import BrokenPromise, Program
from tests.clients.model.promises import Promises
from tests.clients.model.server import ModelServer

# steps of one history
STEPS = 30
# steps with which some histories begin, and which are more frequent in them
BEGINNING = [*["write"] * 3, *["live"] * 3, "count", *["change_rights"] * 4]
BEGINNING += ["watch", "change_speed", "cut"]
# seconds after which a client has settled everything, if nothing fails any more
REST = 200.0
TIMEOUT = 8.0
# reports of one moment after which a client is considered to run in a circle
ENDLESS = 5000

Step = tuple[str, int]


def create_steps(seed: int) -> list[Step]:
    """Return the steps of a history: names of actions, each with a seed of its own."""
    numbers = random.Random(seed)
    names = numbers.choices(list(WEIGHTS), list(WEIGHTS.values()), k=numbers.randint(8, STEPS))
    if numbers.random() < 0.4:
        # begin with what changed rights concern, which is rare otherwise
        names = [*BEGINNING, *numbers.choices([*BEGINNING, *names], k=len(names))]
    return [(name, numbers.randrange(2**31)) for name in names]


class History:
    """One client, its program, and the server."""

    def __init__(self, client: Any, seed: int, *, trace: bool = False) -> None:
        numbers = random.Random(seed)
        self.client = client
        self.trace = trace
        self.lines: list[str] = []
        self.program = Program()
        self.server = ModelServer(seed, client, None)
        self.promises = Promises(self.program, self.server.table, self.server.rooms)
        self.server.observer = self.promises
        # whether the server answers with tokens that expire, and the program has a function
        self.has_tokens = numbers.random() < 0.5
        # what the token function does: "work", "fail", "hang"
        self.token_mode = "work"
        # numbers that make names unique
        self.count = 0
        if self.has_tokens and numbers.random() < 0.5:
            self.server.lifetime = 60.0
        client.create(url="ws://model/", tokens=self.has_tokens, timeout=TIMEOUT, seed=seed)

    # running

    def run(self, steps: Sequence[Step]) -> None:
        """Run a history to its end; raise `BrokenPromise` if the client breaks one."""
        try:
            self.do("connect")
            self.advance(0.0)
            for name, seed in steps:
                self.note(f"--- {name} {seed}")
                ACTIONS[name](self, random.Random(seed))
            self.rest()
            self._end()
        finally:
            self.client.finish()

    def note(self, line: str, at: float | None = None) -> None:
        if self.trace:
            self.lines.append(f"{self.client.now if at is None else at:9.3f} {line}")

    def do(self, op: str, **fields: Any) -> None:
        """Let the program do something."""
        if op == "connect":
            self.promises.allow_connection()
        self.note(f"program: {op} {fields}")
        self.client.do(op, **fields)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        end = self.client.now + seconds
        quick = 0
        while True:
            before = self.client.now
            self.server.advance(self.client.now)
            reports = self.client.run(max(self.client.now, min(self.server.next_due, end)))
            self.server.now = max(self.server.now, self.client.now)
            for report in reports:
                self._handle(report)
            self.promises.frames_handled()
            quick = quick + 1 if self.client.now == before else 0
            if quick > ENDLESS:
                raise BrokenPromise("the client sends without end")
            if not reports and self.client.now >= end - ROUNDING and self.server.next_due > end:
                return

    def _handle(self, report: dict[str, Any]) -> None:
        at, kind = report["at"], report["kind"]
        fields = {key: value for key, value in report.items() if key not in ("at", "kind")}
        self.note(f"client: {kind} {fields}", at)
        promises = self.promises
        match kind:
            case "connect":
                promises.connected(at)
                self.server.connect(report["socket"])
            case "out":
                self.server.receive(report["socket"], report["frame"], at)
            case "hangup":
                self.server.hang_up(report["socket"])
            case "token":
                self._give_token(report["token"])
            case "status":
                promises.status(report["status"], report["user"], report.get("code"))
            case "settled":
                promises.settled(report["call"], report["error"])
            case "shown":
                promises.shown(report["id"], report["shown"], report["user"])
            case "event":
                promises.event(report["id"], report["event"], report["document"], report["cursor"])
            case "resync":
                promises.resynced(report["id"], report["reason"])
            case "message":
                promises.message(report["id"], report["message"])
            case "thrown":
                self.program.mistakes += 1
            case "error" | "refused" if report.get("source") == "listener":
                self.program.reported_mistakes += 1
            case "log" | "raised":
                raise BrokenPromise(f"{kind}: {report['text']}")

    def _give_token(self, token: int) -> None:
        if self.token_mode == "work":
            self.client.do("token", token=token)
        elif self.token_mode == "fail":
            self.client.do("token", token=token, error="a mistake of the program")

    # rest

    def inspect(self) -> dict[str, Any]:
        """Return what the client shows."""
        self.client.do("inspect")
        shown: dict[str, Any] = {}
        for report in self.client.run(self.client.now):
            if report["kind"] == "inspect":
                shown = report
            else:
                self._handle(report)
        return shown

    def calm(self) -> None:
        """Let nothing fail any more."""
        self.token_mode = "work"
        server = self.server
        server.network, server.latency, server.thinking = "up", 0.0, 0.0
        server.slow_snapshots = False
        server.refusals.clear()
        for link in server.links.values():
            link.latency = link.thinking = 0.0

    def rest(self) -> None:
        """Wait until everything is settled, and check what the client shows."""
        self.note("--- rest")
        self.calm()
        self.advance(REST)
        shown = self.inspect()
        self.note(f"{shown}")
        status = self.program.status
        if status == "closed":
            self.promises.check_terminated(shown["objects"], shown["user"])
            return
        if status != "live":
            raise BrokenPromise(f"the client is {status} although nothing fails any more")
        (link,) = self.server.links.values()
        if shown["user"] != link.user:
            raise BrokenPromise(f"the client shows the user {shown['user']}, not {link.user}")
        self.promises.check_rest(shown["objects"], link.user, link.user or link.connection)

    def _end(self) -> None:
        """Let the program close its client, and check that nothing is left."""
        self.note("--- close")
        if self.program.status != "closed":
            self.do("close")
        self.advance(5.0)
        self.promises.forbid_connection()
        self.advance(60.0)
        if self.program.status != "closed":
            raise BrokenPromise(f"the status is {self.program.status} after close()")
        if self.server.links:
            raise BrokenPromise("a connection is open after close()")
        for call in self.program.calls.values():
            if not call.settled:
                raise BrokenPromise(f"never settled, though the client was closed: {call}")
        if timers := self.inspect()["timers"]:
            raise BrokenPromise(f"{timers} timers are left after close()")

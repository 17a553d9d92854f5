"""The handle of a load generator, which is a process of its own (`benchmarks.loader`)."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

Step = tuple[str | None, str]
"""(text to send or None, what the answer must contain)."""


class Load:
    """Sockets that are subscribed to something, and who triggers and checks their events."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.loader"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.classes = 1

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # what it was told last, unread
                pipe.close()

    def _ask(self, do: str, **order: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **order}).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("The load generator died.")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def open(self, sockets: Sequence[tuple[Any, ...]], timeout: float = 120) -> Any:
        """Open sockets: ((host, port, path), class, steps[, receive buffer in bytes]) each.

        The answer's ``refused`` is a server's refusal, or None.
        """
        return self._ask("open", sockets=sockets, timeout=timeout)

    def again(self, steps: list[tuple[int, list[Step]]], timeout: float = 120) -> Any:
        """Say something new on every socket: (class, steps) each."""
        return self._ask("again", steps=steps, timeout=timeout)

    def begin(self, classes: int = 1) -> None:
        """Count from here, in so many classes."""
        self.classes = classes
        self._ask("begin", classes=classes)

    def closed_loop(
        self,
        ports: list[int],
        *,
        seconds: float = 1.0,
        least: int = 1,
        count: int = 1,
        timeout: float = 30.0,
        **message: Any,
    ) -> dict[str, Any]:
        """Trigger ``count`` events at a time, the next once all have the last."""
        return self._ask(
            "closed_loop",
            ports=ports,
            seconds=seconds,
            least=least,
            count=count,
            timeout=timeout,
            message=message,
        )

    def paced(
        self, ports: list[int], rate: float, events: int, timeout: float = 10, **message: Any
    ) -> dict[str, Any]:
        """Trigger events by the clock."""
        return self._ask(
            "paced", ports=ports, rate=rate, events=events, timeout=timeout, message=message
        )

    def quiet(self, seconds: float = 0.3) -> dict[str, Any]:
        """Listen on: what comes now is one too many."""
        return self._ask("quiet", seconds=seconds)

    def stall(self, index: int = 0) -> None:
        """One socket reads no more."""
        self._ask("stall", index=index)

    def wake(self, index: int = 0, timeout: float = 10) -> dict[str, Any]:
        """And now it reads all: with what code was it closed?"""
        return self._ask("wake", index=index, timeout=timeout)

"""Control a load generator, which runs in another process (`benchmarks.loader`)."""

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
    """Subscribed sockets; triggers events and checks their deliveries."""

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
            with contextlib.suppress(BrokenPipeError):  # the last command was not read
                pipe.close()

    def _request(self, do: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("The load generator died.")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def open(self, sockets: Sequence[tuple[Any, ...]], timeout: float = 120) -> Any:
        """Open sockets, each given as ((host, port, path), class, steps[, receive buffer size]).

        ``refused`` in the result is the refusal of a server, or None.
        """
        return self._request("open", sockets=sockets, timeout=timeout)

    def send_steps(self, steps: list[tuple[int, list[Step]]], timeout: float = 120) -> Any:
        """Send new steps on every socket, each given as (class, steps)."""
        return self._request("send_steps", steps=steps, timeout=timeout)

    def begin(self, classes: int = 1) -> None:
        """Start counting events, in this number of classes."""
        self.classes = classes
        self._request("begin", classes=classes)

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
        """Trigger ``count`` events at a time, the next ones when all have arrived."""
        return self._request(
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
        """Trigger events at a fixed rate."""
        return self._request(
            "paced", ports=ports, rate=rate, events=events, timeout=timeout, message=message
        )

    def quiet(self, seconds: float = 0.3) -> dict[str, Any]:
        """Keep reading and count the events that arrive, which are too many."""
        return self._request("quiet", seconds=seconds)

    def stall(self, index: int = 0) -> None:
        """Stop reading from one socket."""
        self._request("stall", index=index)

    def wake(self, index: int = 0, timeout: float = 10) -> dict[str, Any]:
        """Read the stalled socket to its end and return its close code."""
        return self._request("wake", index=index, timeout=timeout)

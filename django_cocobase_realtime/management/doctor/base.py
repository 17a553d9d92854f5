"""Probes and their findings. Each probe runs in a thread of its own, and for a limited time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from django.db import connections

Level = Literal["ok", "warn", "fail"]

# seconds that one probe may take
PROBE_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    level: Level
    message: str
    # what to do about it; empty if nothing must be done
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing to find out."""

    # the first word of its lines
    name: str
    # yields what it finds; exceptions are failures
    run: Callable[[], Iterator[Finding]]
    # what to do if it raises, or does not end
    hint: str = ""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The findings of a probe."""

    name: str
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def is_failed(self) -> bool:
        """Whether one of the findings is a failure."""
        return any(finding.level == "fail" for finding in self.findings)


def run_probe(probe: Probe, timeout: float | None = None) -> ProbeResult:
    """Return the findings of a probe, also if it raises or does not end within `PROBE_TIMEOUT`."""
    timeout = PROBE_TIMEOUT if timeout is None else timeout
    findings: list[Finding] = []

    def run() -> None:
        try:
            for finding in probe.run():
                findings.append(finding)  # noqa: PERF402 - those before an exception are kept
        except Exception as error:
            text = " ".join(str(error).split()) or "no message"
            findings.append(Finding("fail", f"{type(error).__name__}: {text}", probe.hint))
        finally:
            connections.close_all()

    started_at = time.monotonic()
    # a daemon, so that a probe that hangs does not keep the command from ending
    thread = threading.Thread(target=run, name=f"doctor-{probe.name}", daemon=True)
    thread.start()
    thread.join(timeout)
    seconds = time.monotonic() - started_at
    if thread.is_alive():
        late = Finding("fail", f"There was no answer within {timeout:g} seconds.", probe.hint)
        return ProbeResult(probe.name, (*findings, late), seconds)
    return ProbeResult(probe.name, tuple(findings), seconds)

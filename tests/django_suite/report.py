"""The outcomes of a run, and how they differ from those of a run without the app."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
UNWATCHED = HERE / "unwatched.txt"
EXCEPTIONS = HERE / "exceptions.toml"
MAX_TEXT = 1500  # characters of a traceback that are printed


@dataclass
class Records:
    """The records of one run."""

    # "passed", "skipped" or "failed" by test
    outcomes: dict[str, str] = field(default_factory=dict)
    # tracebacks of the failed tests
    texts: dict[str, str] = field(default_factory=dict)
    # what the oracle found, by test
    findings: dict[str, dict[str, Any]] = field(default_factory=dict)
    # queries by database, by test
    queries: dict[str, dict[str, int]] = field(default_factory=dict)
    # number of watched models
    watched: int = 0
    # models that the system checks refused, with the message
    refused: dict[str, str] = field(default_factory=dict)
    # whether the run was completed
    finished: bool = False

    @classmethod
    def read(cls, folder: Path) -> Records:
        """Read the records of all processes of a run."""
        records = cls()
        for path in sorted(folder.glob("*.jsonl")):
            for line in path.read_text().splitlines():
                records._add(json.loads(line))
        return records

    def _add(self, record: dict[str, Any]) -> None:
        kind, test = record["kind"], record["test"]
        if kind == "outcome":
            # a test may also fail in its subtests, and after its end
            if self.outcomes.get(test) != "failed":
                self.outcomes[test] = record["outcome"]
            if record["outcome"] == "failed":
                self.texts[test] = self.texts.get(test, "") + record["text"]
        elif kind == "oracle":
            self.findings[test] = record
        elif kind == "queries":
            self.queries[test] = record["counts"]
        elif kind == "watched":
            self.watched, self.refused = record["models"], record["refused"]
        elif kind == "finished":
            self.finished = True

    @property
    def failed(self) -> set[str]:
        """The failed tests."""
        return {test for test, outcome in self.outcomes.items() if outcome == "failed"}

    def found(self, key: str) -> dict[str, list[str]]:
        """Return the tests for which the oracle found something, with what it found."""
        return {test: finding[key] for test, finding in self.findings.items() if finding[key]}

    @property
    def tests_with_events(self) -> int:
        """How many tests had events in the log at their end."""
        return sum(1 for test in self.outcomes if self.findings.get(test, {}).get("events"))


def read_unwatched(section: str) -> set[str]:
    """Return the tests that fail without the app, as they are stored for one kind of run."""
    return set(_sections().get(section, ()))


def store_unwatched(section: str, tests: Iterable[str]) -> None:
    """Store the tests that fail without the app."""
    sections = {**_sections(), section: sorted(tests)}
    lines = [
        "# Tests that fail without the app. Written by `python -m tests.django_suite --store`."
    ]
    for name in sorted(sections):
        lines += ["", f"[{name}]", *sections[name]]
    UNWATCHED.write_text("\n".join(lines) + "\n")


def _sections() -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for line in UNWATCHED.read_text().splitlines() if UNWATCHED.exists() else ():
        if line.startswith("["):
            current = sections.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            current.append(line)
    return sections


def read_exceptions(kind: str, database: str) -> dict[str, str]:
    """Return the excepted tests of one kind, "failure" or "log", with their reasons."""
    entries = tomllib.loads(EXCEPTIONS.read_text()).get(kind, [])
    return {
        test: entry["reason"]
        for entry in entries
        if database in entry.get("databases", ["sqlite", "postgres"])
        for test in entry["tests"]
    }


def exception_line(text: str) -> str:
    """Return the line of a traceback that names the exception."""
    lines = text.strip().splitlines()
    last_frame = max((n for n, line in enumerate(lines) if line.startswith("  ")), default=-1)
    return next(iter(lines[last_frame + 1 :]), "")


def shortened(text: str) -> str:
    """Return the end of a traceback."""
    text = text.strip()
    return text if len(text) <= MAX_TEXT else "... " + text[-MAX_TEXT:]

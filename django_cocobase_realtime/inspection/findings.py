"""Findings: the results of the steps of an explanation, each a sentence, with its parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one step. Its text contains no secret values."""

    # True if the step lets the document pass, False if not, None if it decides nothing
    passes: bool | None
    # a sentence without its full stop
    text: str
    # the findings from which this one follows
    parts: tuple[Finding, ...] = ()

    @property
    def reason(self) -> str:
        """The text, followed by those of the parts that decided, if the step does not pass."""
        if self.passes is not False:
            return self.text
        reasons = [part.reason for part in self.parts if part.passes is False]
        return f"{self.text}: {'; '.join(reasons)}" if reasons else self.text

    def lines(self, depth: int = 0) -> Iterator[str]:
        """Yield the finding and its parts as lines, indented by their depth."""
        mark = {True: "yes", False: "NO ", None: "-  "}[self.passes]
        yield f"{'    ' * depth}{mark} {self.text}"
        for part in self.parts:
            yield from part.lines(depth + 1)

    @property
    def state(self) -> str:
        """``yes``, ``no`` or ``note``, for display."""
        return {True: "yes", False: "no", None: "note"}[self.passes]

    def as_json(self) -> dict[str, Any]:
        """Return the finding as JSON values."""
        return {
            "passes": self.passes,
            "text": self.text,
            "parts": [part.as_json() for part in self.parts],
        }


def first_reason(findings: Iterable[Finding]) -> str | None:
    """Return the reason of the first finding that does not pass, or None."""
    return next((finding.reason for finding in findings if finding.passes is False), None)

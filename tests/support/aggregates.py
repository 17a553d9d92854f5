"""A client of aggregates in tests: it makes groups of the frames alone."""

from __future__ import annotations

from typing import Any

from tests.support.results import ResultClient


class AggregateClient(ResultClient):
    """The groups of an aggregate."""

    kind = "aggregate"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # groups of frames by the values that make them
        self.groups: dict[tuple[Any, ...], dict[str, Any]] = {}

    async def start(self, query: dict[str, Any], **options: Any) -> None:
        """Subscribe, and receive all groups."""
        await super().start(query, **options)
        assert self.frames[0]["reset"], self.frames[0]

    def _splice(self, frame: dict[str, Any]) -> None:
        if frame.get("reset"):
            self.groups = {}
        for group in frame["groups"]:
            key = tuple(group.get("key", {}).values())
            if group["count"] or "key" not in group:
                self.groups[key] = group
            else:
                del self.groups[key]  # a group that the client has

    @property
    def counts(self) -> dict[Any, int]:
        """The numbers of rows by the only value that makes each group, or by a tuple of several."""
        return {
            key[0] if len(key) == 1 else key: group["count"] for key, group in self.groups.items()
        }

    @property
    def only(self) -> dict[str, Any]:
        """The only group."""
        (group,) = self.groups.values()
        return group

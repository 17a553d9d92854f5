"""Permissions of the measured collections, each with a mandatory filter."""

from __future__ import annotations

from typing import Any


class OfProject:
    """Show the rows of the identity's project."""

    def visible_to(self, identity: Any) -> dict[str, Any]:
        """Return a filter with one equality."""
        return {"project": identity.project}


class Own:
    """Show the rows that the identity owns."""

    def visible_to(self, identity: Any) -> dict[str, Any]:
        """Return a filter with one equality, with a different value for each user."""
        return {"owner": identity.user_id}

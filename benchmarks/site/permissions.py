"""Permissions of the measured collections: each has a mandatory filter."""

from __future__ import annotations

from typing import Any


class OfProject:
    """Rows of the identity's project."""

    def visible_to(self, identity: Any) -> dict[str, Any]:
        """One equality."""
        return {"project": identity.project}


class Own:
    """Rows that the identity owns."""

    def visible_to(self, identity: Any) -> dict[str, Any]:
        """One equality, another value for each user."""
        return {"owner": identity.user_id}

"""Names of channel-layer groups. Collections and rooms map to groups one to one.

Channels allows ASCII letters, digits, hyphen, underscore and period, fewer than 100 characters;
collection and room names are any text, so each group name carries a digest.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2s

CONTROL_GROUP = "realtime.control"
"""Every process listens here: revoked credentials, disconnects."""


@lru_cache(maxsize=4096)
def collection_group(collection: str) -> str:
    """The group to which changes of a collection are sent."""
    return "realtime.collection." + _digest(collection)


@lru_cache(maxsize=4096)
def room_group(project: str, room: str) -> str:
    """The group of a room; rooms of two projects never meet, whatever their names."""
    return "realtime.room." + _digest(f"{len(project)}:{project}{room}")


def _digest(text: str) -> str:
    return blake2s(text.encode(), digest_size=16).hexdigest()

"""The permission of a measured collection that takes long."""

from __future__ import annotations

import time
from typing import Any


class Slow:
    """Take a second, as a permission that asks another service."""

    def can_subscribe(self, identity: Any, filters: Any) -> bool:
        """Allow everything, after a while."""
        time.sleep(1)
        return True

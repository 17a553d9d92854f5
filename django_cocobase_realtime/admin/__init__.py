"""The admin: API keys, and pages that show who is connected."""

from . import api_keys, operations

__all__ = ["api_keys", "operations"]

"""Scripts that write rows in every way that the ORM has."""

from . import bulk_writes, deletes, receivers, relations, saves, updates
from .common import SCRIPTS

__all__ = ["SCRIPTS", "bulk_writes", "deletes", "receivers", "relations", "saves", "updates"]

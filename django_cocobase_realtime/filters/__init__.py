"""Filters of rows: parsed once, then evaluated on rows, in the database, and in an index.

All modules but ``orm`` and ``sql`` are free of Django.
"""

from .filter import Filter
from .index.index import FilterIndex
from .parser import FilterLimits, parse
from .row import Row
from .schema import FieldSpec, InvalidFilter, Kind, Ref, Schema, fold

__all__ = [
    "FieldSpec",
    "Filter",
    "FilterIndex",
    "FilterLimits",
    "InvalidFilter",
    "Kind",
    "Ref",
    "Row",
    "Schema",
    "fold",
    "parse",
]

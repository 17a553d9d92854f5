"""Filters: parsed once, then a predicate on rows and an index over subscriptions. Pure."""

from .expression import Filter, Row
from .grammar import FilterLimits, parse
from .index import FilterIndex
from .schema import FieldSpec, InvalidFilter, Kind, Schema

__all__ = [
    "FieldSpec",
    "Filter",
    "FilterIndex",
    "FilterLimits",
    "InvalidFilter",
    "Kind",
    "Row",
    "Schema",
    "parse",
]

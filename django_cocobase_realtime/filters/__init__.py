"""Filters: parsed once, then a predicate on rows and an index over subscriptions. Pure."""

from .index.index import FilterIndex
from .nodes import Filter
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

"""Filters, which select rows by conditions on their fields.

A filter is parsed once, and can then be evaluated on a row in Python, in the database, and in an
index over many filters. Only the modules ``orm`` and ``sql`` use Django.
"""

from .client_filters import ClientFilters
from .cost import estimate_cost
from .filter import Filter
from .index.index import FilterIndex
from .key_set import KeySet, keys_of
from .parser import FilterLimits, MakeKeySet, parse
from .row import Row
from .schema import FieldSpec, InvalidFilter, Kind, Ref, Schema, fold

__all__ = [
    "ClientFilters",
    "FieldSpec",
    "Filter",
    "FilterIndex",
    "FilterLimits",
    "InvalidFilter",
    "KeySet",
    "Kind",
    "MakeKeySet",
    "Ref",
    "Row",
    "Schema",
    "estimate_cost",
    "fold",
    "keys_of",
    "parse",
]

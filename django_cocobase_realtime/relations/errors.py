"""Errors of this package."""


class UnsupportedQuery(Exception):
    """A query cannot be a key query. The message names what to change in the project's code."""

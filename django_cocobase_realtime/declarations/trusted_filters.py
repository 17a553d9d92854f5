"""The filters of the project's own code: those that ``visible_to`` returns, and others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from ..filters import Filter, InvalidFilter, MakeKeySet, Schema, parse
from ..filters.paths import ModelPaths
from ..permissions import Visible
from .image_fields import filter_names


@dataclass(frozen=True, slots=True)
class TrustedFilters:
    """Parses filters of the project's own code for one collection."""

    # name of the collection, for error messages
    collection: str
    # all fields of the model that do not look secret, also those that images do not hold
    model_schema: Schema
    # other names of fields: ``owner_id``, ``pk``
    aliases: dict[str, str]
    # paths to related rows
    paths: ModelPaths

    def parse(
        self, filters: Mapping[str, Any], schema: Schema, key_set: MakeKeySet | None = None
    ) -> Filter:
        """Parse a filter with the fields of a schema. Raises ``ImproperlyConfigured``."""
        try:
            return parse(
                filters,
                schema,
                trusted=True,
                aliases=self.aliases,
                key_set=key_set,
                paths=self.paths,
            )
        except InvalidFilter as error:
            raise ImproperlyConfigured(f"Collection {self.collection!r}: {error}") from error

    def parse_visible(
        self,
        visible: Visible,
        schema: Schema,
        permission_fields: Sequence[str] | None,
        key_set: MakeKeySet | None,
    ) -> Filter:
        """Convert a return value of ``visible_to`` to a filter.

        A filter may name the fields in ``schema``, which images hold. Raises
        ``ImproperlyConfigured``; if other fields are named, with the line to add, and ``TypeError``
        for a value that is none.
        """
        if visible is True:
            return Filter.everything()
        if visible is None or visible is False:
            return Filter.unknown() if visible is None else Filter.nothing()
        if not isinstance(visible, Mapping):
            raise TypeError(
                f"visible_to of collection {self.collection!r} must return a filter (a mapping), "
                f"True, False or None, not {type(visible).__name__}."
            )
        filter = self.parse(visible, self.model_schema, key_set)
        missing = sorted(filter_names(filter) - schema.keys())
        if not missing:
            return filter
        named = (*(permission_fields or ()), *missing)
        raise ImproperlyConfigured(
            f"Collection {self.collection!r}: visible_to names {missing}, which logged rows do not "
            f"hold. Add the option: permission_fields = {list(named)}"
        )

"""Tables that a collection's permission reads besides its own, named in ``depends_on``.

A permission such as "the tickets of my teams" reads the table of memberships. A change of such a
table can end or begin the right to see a row, so it is logged as well: the changes of all these
tables of a database are in one stream of its log. No collection has the name of this stream, and
no client can subscribe to it.

A row of a multi-table child is in several tables. Each of them is a dependency of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.apps import apps
from django.db import models

from ..utils.transactions import database_for
from .image_fields import row_tables
from .serialization import RowCodec

HIDDEN_PREFIX = "$related."
"""Of the names of hidden streams, which no collection may have."""

# fields with large values, whose parts are compared rather than the whole
_OPAQUE = (models.BinaryField, models.JSONField)


def hidden_stream(using: str) -> str:
    """Return the name of the stream with the changes of a database's dependency tables."""
    return HIDDEN_PREFIX + using


def is_hidden(stream: str) -> bool:
    """Return whether a stream has the changes of dependency tables."""
    return stream.startswith(HIDDEN_PREFIX)


def label_of(document_id: str) -> tuple[str, str]:
    """Return the label of the model, and the row's own document id, of an id in a hidden stream."""
    label, _, own_id = document_id.partition(" ")
    return label, own_id


def dependency_models(labels: Iterable[str]) -> dict[str, type[models.Model]]:
    """Return the models with these labels and their multi-table parents, by label.

    Raises ``LookupError`` if there is no model with a label.
    """
    return {model._meta.label: model for label in labels for model in _models(label)}


def _models(label: str) -> Iterator[type[models.Model]]:
    model = apps.get_model(label)
    yield from row_tables(model._meta.concrete_model or model)


class DependencyCodec(RowCodec):
    """Converts rows of one table, whose document ids in the log begin with the model's label."""

    def document_id(self, key: Any) -> str:
        """Return the document id of a primary key in the hidden stream."""
        return f"{self.model._meta.label} {super().document_id(key)}"

    def key(self, document_id: str) -> Any | None:
        """Return the primary key with this id in the hidden stream; None if there can be none."""
        return super().key(label_of(document_id)[1])


@dataclass(frozen=True, eq=False)
class DependencyTable:
    """A table whose changes are logged in the hidden stream of its database.

    It has the attributes of a `Collection` that capture and the log use. Images have all columns
    of the table, except those that look secret, and binary data and JSON (see `columns`).
    """

    # the model that has the table
    model: type[models.Model]
    # "signals" or "triggers", as in the option of a collection; None for the setting ``CAPTURE``
    capture: str | None = None
    # its changes are always logged, with the row as it was before
    durable = True
    track = True

    @property
    def label(self) -> str:
        """The label of the model, such as "teams.Membership"."""
        return self.model._meta.label

    @property
    def name(self) -> str:
        """The name in messages of commands and checks, which is the label."""
        return self.label

    @property
    def concrete_model(self) -> type[models.Model]:
        """The model that has the table."""
        return self.model

    @property
    def tables(self) -> list[type[models.Model]]:
        """The models whose tables hold a row: the model alone, without its parents."""
        return [self.model]

    @cached_property
    def codec(self) -> DependencyCodec:
        """Converts rows to images."""
        fields = self.model._meta.local_concrete_fields
        names = [field.name for field in fields if not isinstance(field, _OPAQUE)]
        return DependencyCodec(self.model, names=names)

    @cached_property
    def columns(self) -> dict[str, str]:
        """Names in images by the captured columns of the table.

        An update of another column is logged as well, but the images do not show it.
        """
        return {str(field.column): name for name, field in self.codec.fields.items()}

    @property
    def stream(self) -> str:
        """The name of the hidden stream."""
        return hidden_stream(self.database)

    @property
    def database(self) -> str:
        """Alias of the database that contains the rows and their log."""
        return database_for(self.model)

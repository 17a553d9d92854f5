"""What a project declares: a collection is a model as clients see it.

Declared as a class with ``@register("name")``, or in settings, which makes the same class. A
collection answers three questions: what a row looks like on the wire (``codec``, ``document``),
what may be asked (``schema``), and who may see it (``grant``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from hashlib import blake2s
from typing import Any, ClassVar

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.utils.module_loading import import_string

from ..events import Change, Image
from ..filters import Filter, InvalidFilter, Kind, Row, Schema, parse
from ..filters.orm import field_spec
from ..identity import Identity
from ..permissions import And, Visible
from ..utils.transactions import database_for
from .authorization import Grant, evaluate_permission
from .serialization import RowCodec, to_json_value

logger = logging.getLogger(__name__)

TRIGGER_PREFIX = "cocobase_realtime_"
OPTIONS = (
    "model",
    "fields",
    "filters",
    "permission",
    "serializer",
    "durable",
    "track",
    "capture",
    "project_field",
    "created_field",
    "updated_field",
    "soft_delete",
    "not_secret",
)


class Collection:
    """A model as clients see it. Subclass, set ``model``, and ``@register`` it.

    ``fields``: names that clients may read, None for all concrete ones but secret-looking ones.
    ``filters``: names that clients may filter by (``meta`` or ``meta.tags`` for JSON), None for
    the readable ones. ``permission``: a class with the methods of `permissions.Permission`, or a
    combination of such; where there are methods here too, both must allow.
    ``serializer``: a DRF serializer class, or a callable from instance to a mapping, that makes
    ``data``. ``track`` False saves the query for old values: no ``changed``. ``capture``:
    "signals", or "triggers", where PostgreSQL's triggers write the log (``realtime_triggers
    install``). ``durable`` False keeps no log. ``project_field``: the field whose value is the
    project that owns a row. ``soft_delete``: a field that is true, or not null, in rows that count
    as deleted, or a filter that they match. ``not_secret``: names that look secret and are not.
    Classes and models may be given as dotted paths and labels.
    """

    name: ClassVar[str] = ""
    model: ClassVar[type[models.Model] | str]
    fields: ClassVar[Sequence[str] | None] = None
    filters: ClassVar[Sequence[str] | None] = None
    permission: ClassVar[type[Any] | str | None] = None
    serializer: ClassVar[Callable[..., Any] | str | None] = None
    durable: ClassVar[bool] = True
    track: ClassVar[bool] = True
    capture: ClassVar[str] = "signals"
    project_field: ClassVar[str | None] = None
    created_field: ClassVar[str | None] = None
    updated_field: ClassVar[str | None] = None
    soft_delete: ClassVar[str | Mapping[str, Any] | None] = None
    not_secret: ClassVar[Sequence[str]] = ()

    # who may see it

    def can_subscribe(self, identity: Identity, filters: Mapping[str, Any]) -> bool:
        """Whether the identity may subscribe; see `permissions.Permission`."""
        return identity.is_authenticated

    def visible_to(self, identity: Identity) -> Visible:
        """The mandatory filter; see `permissions.Permission`."""
        return True

    def fields_for(self, identity: Identity) -> Sequence[str] | None:
        """The readable fields; see `permissions.Permission`."""
        return None

    def grant(self, identity: Identity, filters: Mapping[str, Any]) -> Grant | None:
        """Ask the permission; None for a refusal. May use the ORM: not for event loops."""
        asked = self if self.permission is None else And(self._permission, self)
        decision = evaluate_permission(asked, identity, filters, self._parse_visible, self)
        if decision is None:
            return None
        if self.project_field is not None:
            own = self.parse_trusted_filter({self.project_field: identity.project})
            decision = replace(decision, visible=decision.visible & own)
        readable, allowed = self.readable, self.filterable
        narrowed = decision.fields
        if narrowed is not None:
            names = sorted(narrowed) if readable is None else readable
            readable = tuple(name for name in names if name in narrowed)
            allowed = frozenset(name for name in allowed if name.partition(".")[0] in narrowed)
        return Grant(decision, readable, allowed, self.schema, self.track)

    def _parse_visible(self, answer: Visible) -> Filter:
        """What ``visible_to`` returned, as a filter."""
        if answer is True:
            return Filter.everything()
        if answer is None or answer is False:
            return Filter.nothing()
        if isinstance(answer, Mapping):
            return self.parse_trusted_filter(answer)
        raise TypeError(
            f"visible_to of collection {self.name!r} must return a filter (a mapping), "
            f"True, False or None, not {type(answer).__name__}."
        )

    def parse_trusted_filter(self, filters: Mapping[str, Any]) -> Filter:
        """A filter of the project's own. Raises ``ImproperlyConfigured``."""
        try:
            return parse(filters, self.schema, trusted=True, aliases=self._aliases)
        except InvalidFilter as error:
            raise ImproperlyConfigured(f"Collection {self.name!r}: {error}") from error

    # what it is made of, resolved at first use: models are loaded by then

    @cached_property
    def model_class(self) -> type[models.Model]:
        """The watched model. Raises ``LookupError`` for a label that names none."""
        model = self.model
        return apps.get_model(model) if isinstance(model, str) else model

    @cached_property
    def concrete_model(self) -> type[models.Model]:
        """The model that owns the table: a proxy shows the same rows."""
        concrete = self.model_class._meta.concrete_model
        assert concrete is not None
        return concrete

    @cached_property
    def codec(self) -> RowCodec:
        """From rows to images."""
        return RowCodec(self.concrete_model, self.not_secret)

    @cached_property
    def schema(self) -> Schema:
        """The fields of an image and their kinds, for filters."""
        return {name: field_spec(field) for name, field in self.codec.fields.items()}

    @cached_property
    def _aliases(self) -> dict[str, str]:
        """Other names by which the project's own filters know a field: ``owner_id``, ``pk``."""
        fields = self.codec.fields.items()
        found = {field.attname: name for name, field in fields if field.attname != name}
        found.setdefault("pk", self.concrete_model._meta.pk.name)
        return found

    @cached_property
    def deleted_filter(self) -> Filter | None:
        """Rows that count as deleted though they are there; None where no such thing is known."""
        rule = self.soft_delete
        if rule is None:
            return None
        if isinstance(rule, str):
            flag = self.schema[rule].kind is Kind.BOOLEAN
            rule = {rule: True} if flag else {rule: {"isnull": False}}
        return self.parse_trusted_filter(rule)

    def is_deleted(self, image: Image) -> bool:
        """Whether a row with this image counts as deleted."""
        return self.deleted_filter is not None and self.deleted_filter.matches(self.row(image))

    def row(self, image: Image) -> Row:
        """An image as filters see it."""
        return Row(image, self.schema)

    @cached_property
    def readable(self) -> tuple[str, ...] | None:
        """Names in ``data``: None where a serializer alone knows them."""
        if self.fields is not None:
            return tuple(self.fields)
        if self.serializer is not None:
            return None
        return tuple(n for n, field in self.codec.fields.items() if not field.primary_key)

    @cached_property
    def filterable(self) -> frozenset[str]:
        """Names that clients may filter by."""
        if self.filters is not None:
            return frozenset(self.filters)
        names = self._serialized_names() if self.readable is None else self.readable
        short = self.fields is None and self.serializer is None
        key = {self.concrete_model._meta.pk.name} if short else set()
        return frozenset(name for name in {*names, *key} if name in self.schema)

    def _serialized_names(self) -> Sequence[str]:
        serializer = self._serializer
        if isinstance(serializer, type) and hasattr(serializer, "get_fields"):
            return tuple(serializer().fields)
        return ()

    @cached_property
    def declared_time_fields(self) -> frozenset[str]:
        """Fields that were named to be told as a document's times, readable or not."""
        return frozenset(filter(None, (self.created_field, self.updated_field)))

    @cached_property
    def time_fields(self) -> tuple[str | None, str | None]:
        """The fields that say when a row was created and updated: declared, or by their kind."""

        def first(flag: str) -> str | None:
            for name, field in self.codec.fields.items():
                if isinstance(field, models.DateTimeField) and getattr(field, flag):
                    return name
            return None

        return self.created_field or first("auto_now_add"), self.updated_field or first("auto_now")

    @cached_property
    def _permission(self) -> Any:
        permission = self.permission
        return import_string(permission) if isinstance(permission, str) else permission

    @cached_property
    def _serializer(self) -> Callable[..., Any] | None:
        serializer = type(self).__dict__.get("serializer", type(self).serializer)
        if isinstance(serializer, staticmethod):
            serializer = serializer.__func__
        if isinstance(serializer, str):
            serializer = import_string(serializer)
        found: Callable[..., Any] | None = serializer
        return found

    @property
    def database(self) -> str:
        """The one database in which the collection's rows and its stream live."""
        return database_for(self.model_class)

    def make_document(self, change: Change, using: str) -> dict[str, Any] | None:
        """The serializer's document of a row as the change left it (or found it, if that deleted
        it, or made it count as deleted).

        None where documents are projections. A serializer that fails costs its readers the data,
        never the project its save.
        """
        if self._serializer is None:
            return None
        image = change.after
        if image is None or (change.before is not None and self.is_deleted(image)):
            image = change.before
        try:
            return self.serialize(self.codec.to_instance(self.model_class, image or {}, using))
        except Exception:
            logger.exception("The serializer of collection %r failed.", self.name)
            return {}

    def serialize(self, instance: models.Model) -> dict[str, Any] | None:
        """``data`` by the serializer, JSON-ready; None where documents are projections."""
        serializer = self._serializer
        if serializer is None:
            return None
        made = serializer(instance)
        document: dict[str, Any] = to_json_value(getattr(made, "data", made))
        return document


def trigger_name(collection: str) -> str:
    """The name of the function that a collection's triggers call in the database."""
    return TRIGGER_PREFIX + blake2s(collection.encode(), digest_size=8).hexdigest()

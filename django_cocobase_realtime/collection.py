"""What a project declares: a collection is a model as clients see it.

Declared as a class with ``@register("name")``, or in settings, which makes the same class. A
collection answers three questions: what a row looks like on the wire (``codec``, ``document``),
what may be asked (``schema``), and who may see it (``grant``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2s
from typing import Any, ClassVar

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.utils.module_loading import import_string

from .database import database_for
from .documents import RowCodec, is_secret_looking, jsonable
from .events import Change
from .filters import Filter, InvalidFilter, Schema, parse
from .filters.orm import field_spec
from .identity import Identity
from .permissions import Permission, Visible

logger = logging.getLogger(__name__)

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
    "not_secret",
)


@dataclass(frozen=True, slots=True)
class Grant:
    """What one identity may see of a collection: rows by ``visible``, fields by ``fields``.

    ``fields`` is None for a serializer's whole document; ``filters`` may be named by clients.
    """

    visible: Filter
    fields: tuple[str, ...] | None
    filters: frozenset[str]
    schema: Schema


class Collection:
    """A model as clients see it. Subclass, set ``model``, and ``@register`` it.

    ``fields``: names that clients may read, None for all concrete ones but secret-looking ones.
    ``filters``: names that clients may filter by, None for the readable ones.
    ``permission``: a class with the methods of `permissions.Permission`, instead of methods here.
    ``serializer``: a DRF serializer class, or a callable from instance to a mapping, that makes
    ``data``. ``track`` False saves the query for old values: no ``changed``. ``capture``:
    "signals", or "triggers", where PostgreSQL's triggers write the log (``realtime_triggers
    install``). ``durable`` False keeps no log. ``project_field``: the field whose value is the
    project that owns a row. ``not_secret``: names that look secret and are not. Classes and models
    may be given as dotted paths and labels.
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
    not_secret: ClassVar[Sequence[str]] = ()

    # who may see it

    def can_subscribe(self, identity: Identity, filters: Mapping[str, Any]) -> bool:
        """Whether the identity may subscribe; see `permissions.Permission`."""
        return bool(self._decide("can_subscribe", identity, filters))

    def visible_to(self, identity: Identity) -> Visible:
        """The mandatory filter; see `permissions.Permission`."""
        visible: Visible = self._decide("visible_to", identity)
        return visible

    def fields_for(self, identity: Identity) -> Sequence[str] | None:
        """The readable fields; see `permissions.Permission`."""
        fields: Sequence[str] | None = self._decide("fields_for", identity)
        return fields

    def _decide(self, question: str, *args: Any) -> Any:
        answer = getattr(self._permission, question, None) or getattr(Permission(), question)
        return answer(*args)

    def grant(self, identity: Identity, filters: Mapping[str, Any]) -> Grant | None:
        """Ask the permission; None for a refusal. May use the ORM: not for event loops."""
        if not self.can_subscribe(identity, filters):
            return None
        visible = self._visible(identity)
        readable = self.readable
        narrowed = self.fields_for(identity)
        if narrowed is not None:
            wanted = set(narrowed)
            readable = tuple(
                name for name in (narrowed if readable is None else readable) if name in wanted
            )
        filters_allowed = self.filterable
        if narrowed is not None:
            filters_allowed &= wanted
        return Grant(visible, readable, filters_allowed, self.schema)

    def _visible(self, identity: Identity) -> Filter:
        answer = self.visible_to(identity)
        if answer is True:
            visible = Filter.everything()
        elif answer is None or answer is False:
            return Filter.nothing()
        elif isinstance(answer, Mapping):
            visible = self._trusted(answer)
        else:
            raise TypeError(
                f"visible_to of collection {self.name!r} must return a filter (a mapping), "
                f"True, False or None, not {type(answer).__name__}."
            )
        if self.project_field is not None:
            visible &= self._trusted({self.project_field: identity.project})
        return visible

    def _trusted(self, filters: Mapping[str, Any]) -> Filter:
        try:
            return parse(filters, self.schema, trusted=True)
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
    def _permission(self) -> Any:
        permission = self.permission
        if permission is None:
            return Permission()
        if isinstance(permission, str):
            permission = import_string(permission)
        return permission() if isinstance(permission, type) else permission

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

    def document_of(self, change: Change, using: str) -> dict[str, Any] | None:
        """The serializer's document of a row as the change left it (or found it, if deleted).

        None where documents are projections. A serializer that fails costs its readers the data,
        never the project its save.
        """
        if self._serializer is None:
            return None
        image = change.before if change.op == "deleted" else change.after
        try:
            return self.serialize(self.codec.instance(self.model_class, image or {}, using))
        except Exception:
            logger.exception("The serializer of collection %r failed.", self.name)
            return {}

    def serialize(self, instance: models.Model) -> dict[str, Any] | None:
        """``data`` by the serializer, JSON-ready; None where documents are projections."""
        serializer = self._serializer
        if serializer is None:
            return None
        made = serializer(instance)
        document: dict[str, Any] = jsonable(getattr(made, "data", made))
        return document

    def refused_fields(self) -> list[str]:
        """Names in ``fields`` that look secret and were not declared otherwise."""
        return [
            name
            for name in self.fields or ()
            if is_secret_looking(name) and name not in self.not_secret
        ]


def trigger_name(collection: str) -> str:
    """The name of a collection's trigger and of its function in the database."""
    return "cocobase_realtime_" + blake2s(collection.encode(), digest_size=8).hexdigest()


def from_settings(name: str, declaration: Any) -> Collection:
    """A collection from its entry in ``COLLECTIONS``: a model label or a mapping of options.

    Raises ``ImproperlyConfigured`` for anything else.
    """
    if isinstance(declaration, str):
        declaration = {"model": declaration}
    if not isinstance(declaration, Mapping) or "model" not in declaration:
        raise ImproperlyConfigured(
            f"Collection {name!r} must be a model label or a dictionary with a 'model'."
        )
    unknown = sorted(set(declaration) - set(OPTIONS))
    if unknown:
        raise ImproperlyConfigured(
            f"Collection {name!r} has unknown options {unknown}; known are {list(OPTIONS)}."
        )
    attributes = dict(declaration)
    serializer = attributes.get("serializer")
    if callable(serializer) and not isinstance(serializer, type):
        attributes["serializer"] = staticmethod(serializer)
    collection: Collection = type("SettingsCollection", (Collection,), attributes)()
    collection.__dict__["name"] = name
    return collection

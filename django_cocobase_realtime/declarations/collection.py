"""Collections: models as clients see them.

A collection is declared as a class with ``@register("name")``, or by an entry of the
``COLLECTIONS`` setting, from which a class is made. It defines how a row is sent to clients
(`Collection.codec`, `Collection.serialize`), which fields filters may use (`Collection.schema`),
and what an identity may see (`Collection.grant`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, ClassVar

from django.apps import apps
from django.db import models
from django.utils.module_loading import import_string
from msgspec.structs import replace as replace_fields

from ..events import Change, Image
from ..filters import ClientFilters, Filter, Kind, MakeKeySet, Row, Schema
from ..filters.orm import field_spec
from ..filters.paths import ModelPaths
from ..identity import Identity
from ..permissions import And, Visible
from ..utils.project_code import calling
from ..utils.transactions import database_for
from .authorization import Grant, evaluate_permission
from .dependency_table import dependency_models
from .depends_on import SerializedRelation, depends_on_labels, serialized_relations
from .documents import Serializer, serialized_names
from .grants import make_grant
from .image_fields import (
    default_names,
    depends_on_rows,
    field_aliases,
    fields_not_secret,
    filter_names,
    first_datetime_field,
    is_secret_path,
    row_tables,
)
from .live_options import sortable_names, summable_names
from .related_fields import RelatedField, related_fields, related_labels
from .serialization import RowCodec
from .trusted_filters import TrustedFilters


class Collection:
    """A model as clients see it. Subclass it, set ``model``, and ``@register`` the class.

    The methods that decide what an identity may see are those of `permissions.Permission`.
    """

    # name that clients use; set by the decorator, or the key in ``COLLECTIONS``
    name: ClassVar[str] = ""
    # the model, or its label such as "shop.Order"
    model: ClassVar[type[models.Model] | str]
    # names of the fields that clients may read; None for all that do not look secret
    fields: ClassVar[Sequence[str] | None] = None
    # names of the fields that clients may filter by, paths into JSON fields such as ``meta.tags``,
    # and paths of foreign keys to fields of related rows; None for the readable fields
    filters: ClassVar[Sequence[str] | None] = None
    # a class with the methods of `permissions.Permission`, its dotted path, or a combination of
    # such classes; if the collection has such methods itself, both must allow
    permission: ClassVar[type[Any] | str | None] = None
    # makes the data of a document: a serializer class of Django REST framework, a callable that
    # takes an instance and returns a mapping, or a dotted path
    serializer: ClassVar[Callable[..., Any] | str | None] = None
    # whether changes are kept in the log
    durable: ClassVar[bool] = True
    # whether a row is read before a save, which costs a query, to know which fields changed
    track: ClassVar[bool] = True
    # "signals", or "triggers" to have the database write the log; None for the setting ``CAPTURE``
    capture: ClassVar[str | None] = None
    # name of the field that contains the project to which a row belongs
    project_field: ClassVar[str | None] = None
    # name of the field with the time of creation, for the published SDKs
    created_field: ClassVar[str | None] = None
    # name of the field with the time of the last update, for the published SDKs
    updated_field: ClassVar[str | None] = None
    # a field that is true, or not null, in rows that count as deleted; or a filter that they match
    soft_delete: ClassVar[str | Mapping[str, Any] | None] = None
    # names of fields that look secret but are not
    not_secret: ClassVar[Sequence[str]] = ()
    # names of fields that ``visible_to`` and ``has_object_permission`` look at; None for all that
    # are neither secret-looking nor excluded, if there is such a method, or a serializer
    permission_fields: ClassVar[Sequence[str] | None] = None
    # names of fields that are left out unless another option names them
    exclude: ClassVar[Sequence[str]] = ()
    # former names, the oldest first, by which clients may still subscribe
    aliases: ClassVar[Sequence[str]] = ()
    # whether anonymous visitors may read what the permission shows them
    public: ClassVar[bool] = False
    # labels of models that ``visible_to`` reads in queries, and relations that a serializer shows
    depends_on: ClassVar[Sequence[str]] = ()
    # orders that clients use, such as "-priority,created_at", for which an index is checked
    orders: ClassVar[Sequence[str]] = ()
    # names of fields that clients may sort by; None for the readable ones and those in ``filters``
    order_fields: ClassVar[Sequence[str] | None] = None
    # names of fields that clients may sum, average or take extremes of; None for readable numbers
    aggregates: ClassVar[Sequence[str] | None] = None

    def queryset(self, queryset: models.QuerySet[Any]) -> models.QuerySet[Any]:
        """Return the queryset for the serializer's rows, with related rows and annotations."""
        return queryset

    # what an identity may see

    def can_subscribe(self, identity: Identity, filters: ClientFilters) -> bool:
        """Return whether the identity may subscribe; see `permissions.Permission`."""
        return True

    def visible_to(self, identity: Identity) -> Visible:
        """Return which rows the identity may see; see `permissions.Permission`."""
        return True

    def fields_for(self, identity: Identity) -> Sequence[str] | None:
        """Return the fields that the identity may read; see `permissions.Permission`."""
        return None

    def admits(self, identity: Identity) -> bool:
        """Return whether the permission may be asked: see `Identity.may_use_collection`."""
        # compared with True, so that a mistake such as a list does not open the collection
        names = (self.name, *self.aliases)
        return identity.may_use_collection(names, public=self.public is True)

    def grant(
        self, identity: Identity, filters: Mapping[str, Any], key_set: MakeKeySet | None = None
    ) -> Grant | None:
        """Return what the identity may see, or None if it may not subscribe.

        The permission is asked only if `admits` is true. ``key_set`` makes the set for a queryset
        in the result of ``visible_to``, which is refused without it. Raises `ProjectCodeFailed` if
        the project's code raises. It may use the ORM, so it must not be called in an event loop.
        """
        if not self.admits(identity):
            return None
        with calling(f"collection {self.name!r}", "permission", identity.credential):
            aliases, paths = self._field_aliases, self.paths
            client_filters = ClientFilters(filters, self.schema, aliases, paths)
            return self._grant(identity, client_filters, key_set)

    def _grant(
        self, identity: Identity, filters: ClientFilters, key_set: MakeKeySet | None
    ) -> Grant | None:
        permission = self if self.permission is None else And(self.loaded_permission, self)
        parse_visible = partial(self.parse_visible, key_set=key_set)
        decision = evaluate_permission(permission, identity, filters, parse_visible, self)
        if decision is None:
            return None
        if self.project_field is not None:
            same_project = self.parse_trusted_filter({self.project_field: identity.project})
            decision = replace(decision, visible=decision.visible & same_project)
        return make_grant(self, decision, filters, key_set)

    def parse_visible(self, visible: Visible, key_set: MakeKeySet | None = None) -> Filter:
        """Convert a return value of ``visible_to`` to a filter."""
        trusted, fields = self._trusted_filters, self.permission_fields
        return trusted.parse_visible(visible, self.schema, fields, key_set)

    def parse_trusted_filter(self, filters: Mapping[str, Any]) -> Filter:
        """Parse a filter of the project's own code. Raises ``ImproperlyConfigured``."""
        return self._trusted_filters.parse(filters, self.schema)

    # properties that are computed at first use, because models are not loaded before

    @cached_property
    def model_class(self) -> type[models.Model]:
        """The model. Raises ``LookupError`` if there is no model with this label."""
        model = self.model
        return apps.get_model(model) if isinstance(model, str) else model

    @cached_property
    def concrete_model(self) -> type[models.Model]:
        """The model that has the table: for a proxy model, the model that it is a proxy of."""
        concrete = self.model_class._meta.concrete_model
        assert concrete is not None
        return concrete

    @property
    def tables(self) -> list[type[models.Model]]:
        """The models whose tables hold a row: the concrete model, then its parents."""
        return row_tables(self.concrete_model)

    @cached_property
    def dependencies(self) -> tuple[str, ...]:
        """Labels of all related models. Raises ``LookupError`` if ``depends_on`` names no model."""
        relations, fields = self.serialized_relations, self.related_fields
        labels = depends_on_labels(self.concrete_model, self.depends_on, relations)
        return tuple(dependency_models((*labels, *related_labels(fields))))

    @cached_property
    def related_fields(self) -> dict[str, RelatedField]:
        """The fields in documents that show values of related rows, by name."""
        names = self.fields if self.serializer is None and self.durable else None
        return related_fields(self.concrete_model, names or (), self.not_secret)

    @cached_property
    def serialized_relations(self) -> dict[str, SerializedRelation]:
        """The relations in ``depends_on``, whose rows the serializer shows, by name."""
        names = () if self.serializer is None or not self.durable else self.depends_on
        return serialized_relations(self.concrete_model, names, self.database)

    @cached_property
    def codec(self) -> RowCodec:
        """Converts rows to images."""
        return RowCodec(self.concrete_model, self.not_secret, self._image_names)

    @cached_property
    def _image_names(self) -> frozenset[str]:
        """Names of the fields that images hold, besides the primary key."""
        names = {
            *(self.fields or ()),
            *(name for field in self.related_fields.values() for name in field.links),
            *(name.partition(".")[0] for name in self.filters or ()),
            *(self.order_fields or ()),
            *(self.aggregates or ()),
            *filter(None, (self.project_field, *self.time_fields)),
        }
        if isinstance(self.soft_delete, str):
            names.add(self.soft_delete)
        elif self.soft_delete is not None:
            trusted = self._trusted_filters
            names |= filter_names(trusted.parse(self.soft_delete, trusted.model_schema))
        if self.permission_fields is not None:
            names.update(self.permission_fields)
        elif self._depends_on_rows:
            names.update(self._default_names)
        if self.fields is None and self.serializer is None:
            names.update(self._default_names)
        return frozenset(names)

    @property
    def _depends_on_rows(self) -> bool:
        """Whether a permission or a serializer needs values of rows besides the readable ones."""
        if type(self).visible_to is not Collection.visible_to or self.serializer is not None:
            return True
        return hasattr(self, "has_object_permission") or depends_on_rows(self.permission)

    @cached_property
    def _default_names(self) -> tuple[str, ...]:
        """Names of the fields that neither look secret nor are excluded."""
        return default_names(self.concrete_model, self.not_secret, self.exclude)

    @cached_property
    def schema(self) -> Schema:
        """The fields that filters can use, and their kinds, by name."""
        return {name: field_spec(field) for name, field in self.codec.fields.items()}

    @cached_property
    def _trusted_filters(self) -> TrustedFilters:
        fields = fields_not_secret(self.concrete_model, self.not_secret)
        schema = {name: field_spec(field) for name, field in fields.items()}
        return TrustedFilters(self.name, schema, self._field_aliases, self.paths)

    @cached_property
    def paths(self) -> ModelPaths:
        """The paths to related rows."""
        return ModelPaths(self.concrete_model)

    @cached_property
    def _field_aliases(self) -> dict[str, str]:
        """Other names of fields in the project's own filters: ``owner_id``, ``pk``."""
        return field_aliases(self.concrete_model)

    @cached_property
    def deleted_filter(self) -> Filter | None:
        """The filter that rows match if they count as deleted; None without soft deletes."""
        rule = self.soft_delete
        if rule is None:
            return None
        if isinstance(rule, str):
            is_flag = self.schema[rule].kind is Kind.BOOLEAN
            rule = {rule: True} if is_flag else {rule: {"isnull": False}}
        return Filter(self.parse_trusted_filter(rule).root)

    def is_deleted(self, image: Image) -> bool:
        """Return whether a row with this decoded image counts as deleted."""
        return self.deleted_filter is not None and self.deleted_filter.matches(self.row(image))

    def row(self, image: Image) -> Row:
        """Return a decoded image in the form that filters are evaluated on."""
        return Row(image, self.schema)

    def decode(self, change: Change, using: str | None = None) -> Change:
        """Return a stored change with decoded images, which filters and frames need.

        Images are stored as the database holds them: a value that the project encrypts stays
        encrypted in the log and in the channel layer (see `RowCodec.decode`).
        """
        codec = self.codec
        if not codec.raw_names:
            return change
        using = using or self.database
        before, after = (
            None if image is None else codec.decode(image, using)
            for image in (change.before, change.after)
        )
        return replace_fields(change, before=before, after=after)

    @cached_property
    def readable(self) -> tuple[str, ...] | None:
        """Names of the fields in a document's data; None if only the serializer knows them."""
        if self.fields is not None:
            return tuple(self.fields)
        if self.serializer is not None:
            return None
        key = self.concrete_model._meta.pk.name
        return tuple(name for name in self._default_names if name != key)

    @cached_property
    def filterable(self) -> frozenset[str]:
        """Names of the fields that clients may filter by."""
        if self.filters is not None:
            return frozenset(
                name
                for name in self.filters
                if name in self.not_secret or not is_secret_path(name, self.paths)
            )
        readable = self.readable
        names = set(serialized_names(self.loaded_serializer) if readable is None else readable)
        if self.fields is None and self.serializer is None:
            # the primary key is not readable by default, since it is the document's id
            names.add(self.concrete_model._meta.pk.name)
        return frozenset(name for name in names if name in self.schema)

    @cached_property
    def sortable(self) -> frozenset[str]:
        """Names of the fields that clients may sort by."""
        return sortable_names(self)

    @cached_property
    def summable(self) -> frozenset[str]:
        """Names of the fields that clients may aggregate."""
        return summable_names(self)

    @cached_property
    def declared_time_fields(self) -> frozenset[str]:
        """The fields in `created_field` and `updated_field`, which are always sent to SDKs."""
        return frozenset(filter(None, (self.created_field, self.updated_field)))

    @cached_property
    def time_fields(self) -> tuple[str | None, str | None]:
        """The fields with the times of creation and of the last update, if any.

        If they are not declared, fields with ``auto_now_add`` and ``auto_now`` are used.
        """
        model, names = self.concrete_model, self._default_names
        return (
            self.created_field or first_datetime_field(model, names, "auto_now_add"),
            self.updated_field or first_datetime_field(model, names, "auto_now"),
        )

    @cached_property
    def loaded_permission(self) -> Any:
        """The option ``permission``, imported if it is a dotted path."""
        permission = self.permission
        return import_string(permission) if isinstance(permission, str) else permission

    @cached_property
    def loaded_serializer(self) -> Serializer | None:
        """The option ``serializer``, imported if it is a dotted path."""
        # read from the class, because a function would be bound to the instance
        declared = type(self).__dict__.get("serializer", type(self).serializer)
        if isinstance(declared, staticmethod):
            declared = declared.__func__
        if isinstance(declared, str):
            declared = import_string(declared)
        serializer: Serializer | None = declared
        return serializer

    @cached_property
    def loaded_queryset(self) -> Callable[[Any], Any] | None:
        """The option ``queryset`` as a function; None if there is none, or no serializer."""
        declared: Any = type(self).queryset
        if self.serializer is None or declared in (None, Collection.queryset):
            return None
        function: Callable[[Any], Any]
        function = import_string(declared) if isinstance(declared, str) else self.queryset
        return function

    @property
    def stream(self) -> str:
        """The name of the collection in the log, in cursors and in the channel layer.

        It is the first name that the collection had, so that cursors and logged changes stay valid
        when it is renamed, also while processes of both versions are running.
        """
        return self.aliases[0] if self.aliases else self.name

    @property
    def database(self) -> str:
        """Alias of the database that contains the collection's rows and its log."""
        return database_for(self.model_class)


OPTIONS = (*(name for name in Collection.__annotations__ if name != "name"), "queryset")
"""The keys that an entry of the ``COLLECTIONS`` setting may have."""

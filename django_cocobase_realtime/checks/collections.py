"""Checks of the collections that are declared in settings or as classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from django.core.checks import ERROR, CheckMessage
from django.core.exceptions import FieldDoesNotExist, ImproperlyConfigured
from django.db import connections, router
from django.utils.module_loading import import_string

from ..capture.recorder import log_exists
from ..capture.triggers import by_triggers, is_installed, left_over
from ..conf import conf
from ..declarations.capture_mode import TRIGGER_VENDORS, title
from ..declarations.collection import Collection
from ..declarations.dependency_table import HIDDEN_PREFIX, is_hidden
from ..declarations.image_fields import is_secret_looking, is_secret_path, key_names
from ..declarations.registry import registry
from ..declarations.related_fields import is_secret
from ..filters import Filter, InvalidFilter
from ..models import LogEvent
from ..options import SETTING
from ..permissions import Combination
from .base import error, warning
from .dependencies import check_depends_on
from .live_options import check_live_options
from .related_fields import check_related_fields, is_related_name

_PATH_HINT = "A path by which clients filter consists of foreign keys and ends with a field."
MAX_NAME = 128  # characters of a name, as in the columns of the log


def check_collections() -> list[CheckMessage]:
    """Check the declarations of all collections."""
    problems = conf.problems("COLLECTIONS")
    if problems:
        return [error(1, problem.message, problem.hint) for problem in problems]
    messages: list[CheckMessage] = []
    declared: dict[str, Collection] = {}
    for name, entry in conf.collections.items():
        if not isinstance(name, str) or not name:
            messages.append(error(3, f"{name!r} is not a name for a collection.", "Use a string."))
        elif name in registry.registered:
            messages.append(
                error(
                    10,
                    f"Collection {name!r} is declared in {SETTING} and registered as a class.",
                    "Keep one of the two.",
                )
            )
        else:
            try:
                collection = registry.from_settings(name, entry)
            except ImproperlyConfigured as problem:
                messages.append(error(4, str(problem)))
            else:
                messages += _check_collection(name, collection)
                declared[name] = collection
    for name, cls in registry.registered.items():
        collection = registry.from_class(name, cls)
        messages += _check_collection(name, collection)
        declared.setdefault(name, collection)
    messages += _check_aliases(declared)
    return messages


def _check_aliases(declared: Mapping[str, Collection]) -> Iterator[CheckMessage]:
    owners: dict[str, str] = {name: name for name in declared}
    for name, collection in declared.items():
        aliases = collection.aliases
        if isinstance(aliases, str) or not all(
            isinstance(alias, str) and alias for alias in aliases
        ):
            yield error(4, f"Collection {name!r}: 'aliases' must be a list of names.")
            continue
        for alias in aliases:
            if is_hidden(alias):
                yield error(3, f"Collection {name!r}: its alias begins with {HIDDEN_PREFIX!r}.")
            owner = owners.setdefault(alias, name)
            if owner != name:
                yield error(
                    19,
                    f"Collection {name!r}: its alias {alias!r} is a name of collection {owner!r}.",
                    "Clients find one collection by a name. Remove the alias.",
                )
            elif alias == name:
                yield error(19, f"Collection {name!r}: its alias {alias!r} is its own name.")


def _check_collection(name: str, collection: Collection) -> Iterator[CheckMessage]:
    if is_hidden(name):
        yield error(3, f"Collection {name!r}: the name begins with {HIDDEN_PREFIX!r}.")
        return
    if len(name) > MAX_NAME:
        yield error(3, f"Collection {name!r}: the name is longer than {MAX_NAME} characters.")
        return
    if not hasattr(collection, "model"):
        yield error(4, f"Collection {name!r} names no model.", "Set its 'model'.")
        return
    try:
        model = collection.model_class
        meta = model._meta
    except (LookupError, ValueError, AttributeError):
        yield error(
            5,
            f"Collection {name!r} names the model {collection.model!r}, which does not exist.",
            "Write it as 'app_label.Model', and check that the app is in INSTALLED_APPS.",
        )
        return
    if meta.abstract or (not meta.managed and meta.swapped):
        yield error(5, f"Collection {name!r} names {meta.label}, which has no table.")
        return
    messages = [
        *_check_fields(name, collection),
        *_check_classes(name, collection),
        *check_depends_on(name, collection),
        *check_related_fields(name, collection),
    ]
    yield from messages
    if all(message.level < ERROR for message in messages):
        yield from check_live_options(name, collection)


def _check_fields(name: str, collection: Collection) -> Iterator[CheckMessage]:
    meta = collection.concrete_model._meta
    concrete = {field.name for field in meta.concrete_fields}
    for option in (
        *("fields", "filters", "not_secret", "permission_fields", "exclude"),
        *("order_fields", "aggregates"),
    ):
        value = getattr(collection, option)
        if value is None:
            continue
        if isinstance(value, str) or not all(isinstance(item, str) for item in value):
            yield error(4, f"Collection {name!r}: '{option}' must be a list of field names.")
            return
        serialized = option == "fields" and collection.serializer is not None
        for field in value:
            if option == "filters" and "." in field and collection.paths.find(field) is not None:
                continue  # see `_check_related_paths`
            if option in ("fields", "not_secret") and is_related_name(collection, field):
                continue  # see `check_related_fields`
            if not serialized and field.partition(".")[0] not in concrete:
                yield error(
                    6,
                    f"Collection {name!r}: '{option}' names {field!r}, "
                    f"which is not a field of {meta.label}.",
                    f"Its fields are {sorted(concrete)}.",
                )
    yield from _check_related_paths(name, collection)
    for option in ("fields", "filters", "permission_fields", "order_fields", "aggregates"):
        for field in getattr(collection, option) or ():
            looks_secret = is_secret_looking(field) or is_secret_path(field, collection.paths)
            if option == "fields" and is_related_name(collection, field):
                looks_secret = is_secret(field)
            if looks_secret and field not in collection.not_secret:
                yield error(
                    7,
                    f"Collection {name!r}: '{option}' names {field!r}, which looks secret.",
                    "Leave it out, or name it in 'not_secret' if its value may leave the server.",
                )
    for key in key_names(collection.concrete_model):
        if is_secret_looking(key) and key not in collection.not_secret:
            yield error(
                7,
                f"Collection {name!r}: {key!r}, every document's id, looks secret.",
                "Declare another model, or name it in 'not_secret' if its value may leave the "
                "server.",
            )
    yield from _check_soft_delete(name, collection)
    for option in ("project_field", "created_field", "updated_field"):
        field_name = getattr(collection, option)
        if field_name is None:
            continue
        try:
            meta.get_field(field_name)
        except FieldDoesNotExist:
            yield error(6, f"Collection {name!r}: {option!r} {field_name!r} is not a field.")


def _check_related_paths(name: str, collection: Collection) -> Iterator[CheckMessage]:
    """Check the paths to related rows in `filters`, each of which must lead to one row."""
    for field in collection.filters or ():
        try:
            path = collection.paths.resolve(field) if "." in field else None
        except InvalidFilter as problem:
            yield error(6, f"Collection {name!r}: 'filters' names {field!r}: {problem}", _PATH_HINT)
            continue
        if path is not None and not path.to_one:
            yield error(
                6,
                f"Collection {name!r}: 'filters' names {field!r}, which leads to several rows.",
                _PATH_HINT,
            )


def _check_soft_delete(name: str, collection: Collection) -> Iterator[CheckMessage]:
    rule = collection.soft_delete
    if rule is None:
        return
    if not isinstance(rule, str | Mapping) or not rule:
        yield error(4, f"Collection {name!r}: 'soft_delete' must be a field or a filter.")
        return
    try:
        if isinstance(rule, str) and rule not in collection.schema:
            raise ImproperlyConfigured(
                f"Collection {name!r}: 'soft_delete' {rule!r} is not a field."
            )
        if collection.deleted_filter == Filter.nothing():
            yield error(
                4,
                f"Collection {name!r}: 'soft_delete' matches no row.",
                "To compare with null, use 'isnull'.",
            )
    except ImproperlyConfigured as problem:
        fields = sorted(field.name for field in collection.concrete_model._meta.concrete_fields)
        yield error(6, str(problem), f"Its fields are {fields}.")


def _check_classes(name: str, collection: Collection) -> Iterator[CheckMessage]:
    for option in ("permission", "serializer", "queryset"):
        value = getattr(collection, option)
        if isinstance(value, str):
            try:
                value = import_string(value)
            except ImportError as problem:
                yield error(
                    8,
                    f"Collection {name!r}: '{option}' {value!r} cannot be imported.",
                    str(problem),
                )
                continue
        if option == "permission" and value is not None:
            methods = ("can_subscribe", "visible_to", "fields_for", "has_object_permission")
            if not isinstance(value, Combination) and not any(
                callable(getattr(value, method, None)) for method in methods
            ):
                yield error(
                    9,
                    f"Collection {name!r}: 'permission' has no method that decides anything.",
                    f"Give it one of {', '.join(methods)}.",
                )
        if option != "permission" and value is not None and not callable(value):
            yield error(8, f"Collection {name!r}: '{option}' cannot be called.")
    if collection.durable is True or collection.depends_on:
        yield from _check_log_tables(name, collection)
    if collection.capture not in (None, "signals", "triggers"):
        yield error(4, f"Collection {name!r}: 'capture' must be 'signals' or 'triggers'.")
    elif collection.capture == "triggers":
        yield from _check_triggers(name, collection)
    flags = ("durable", "track", "public")
    if not all(isinstance(getattr(collection, flag), bool) for flag in flags):
        yield error(4, f"Collection {name!r}: {', '.join(flags)} must be True or False.")


def _check_log_tables(name: str, collection: Collection) -> Iterator[CheckMessage]:
    using = collection.database
    if not router.allow_migrate_model(using, LogEvent):
        yield error(
            15,
            f"Collection {name!r} is in database {using!r}, which the routers keep the log out of.",
            "Let them migrate this app there, or set 'durable' to False without 'depends_on'.",
        )
    elif (reads := router.db_for_read(collection.model_class)) != using:
        yield warning(
            16,
            f"Collection {name!r} is written to {using!r} and read from {reads!r}.",
            "Snapshots and the log are read from the database that rows are written to.",
        )


def _check_triggers(name: str, collection: Collection) -> Iterator[CheckMessage]:
    vendor = connections[collection.database].vendor
    if vendor not in TRIGGER_VENDORS:
        yield error(
            11,
            f"Collection {name!r}: 'capture' by triggers needs PostgreSQL or SQLite, not {vendor}.",
            "Use 'signals'.",
        )
    if not collection.durable:
        yield error(13, f"Collection {name!r}: triggers write the log; 'durable' must be True.")


def check_installed_triggers(databases: Iterable[str]) -> Iterator[CheckMessage]:
    """Check that the triggers of collections that need them are installed, and no others."""
    # `migrate` runs this before it creates the log and the triggers
    migrated = {using for using in databases if log_exists(using)}
    for collection in by_triggers():
        if collection.database in migrated and not is_installed(collection):
            yield warning(
                14,
                f"The triggers of {title(collection)} are not installed or out of date.",
                "Run manage.py migrate, or manage.py realtime_triggers install. Until then, "
                "only changes that the ORM makes are seen.",
            )
    for using in databases:
        if left_over(using):
            yield warning(
                14,
                f"Database {using!r} has triggers of collections that are captured by signals, or "
                "that do not exist.",
                "Run manage.py migrate, or manage.py realtime_triggers remove. Until then, these "
                "triggers write the log.",
            )

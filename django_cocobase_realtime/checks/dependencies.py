"""Checks of the tables that collections depend on."""

from __future__ import annotations

from collections.abc import Iterator

from django.apps import apps
from django.core.checks import CheckMessage
from django.db import models

from ..declarations.collection import Collection
from ..declarations.depends_on import parse_depends_on, resolve_relation
from ..declarations.image_fields import is_secret_looking, key_names
from ..declarations.related_fields import InvalidRelatedField
from ..models import LogEvent
from ..utils.transactions import database_for
from .base import error, warning


def check_depends_on(name: str, collection: Collection) -> Iterator[CheckMessage]:
    """Check the option ``depends_on`` of a collection."""
    names = collection.depends_on
    if isinstance(names, str) or not all(isinstance(item, str) for item in names):
        yield error(
            4,
            f"Collection {name!r}: 'depends_on' must be a list of labels of models, and of paths "
            "of relations.",
        )
        return
    labels, relations = parse_depends_on(collection.concrete_model, names)
    for path in relations:
        yield from _check_relation(name, collection, path)
    for label in labels:
        try:
            model = apps.get_model(label)
        except (LookupError, ValueError):
            yield error(
                101,
                f"Collection {name!r}: 'depends_on' names {label!r}, which is neither a model nor "
                "a relation.",
                "Write it as 'app_label.Model', as 'app_label.Model_field' for the table of a "
                "many-to-many field, or as a path of relations that begins at the collection's "
                "model, and check that the app is in INSTALLED_APPS.",
            )
            continue
        yield from check_table(name, collection, model, f"'depends_on' names {label!r}")
    if not labels:
        return
    if collection.durable is False:
        yield warning(
            104,
            f"Collection {name!r} has 'depends_on', and 'durable' is False: an event can still be "
            "sent shortly after the right to see it has ended.",
            "Set 'durable' to True. Until then, subscribers fetch everything again when their "
            "rights change.",
        )
    elif collection.track is False:
        yield warning(
            104,
            f"Collection {name!r} has 'depends_on', and 'track' is False: subscribers fetch "
            "everything again when their rights change.",
            "Set 'track' to True, so that they get the rows that they see from then on, and the "
            "ids of the others.",
        )


def _check_relation(name: str, collection: Collection, path: str) -> Iterator[CheckMessage]:
    """Check a path of relations in ``depends_on``, whose rows the serializer shows."""
    named = f"'depends_on' names {path!r}"
    if collection.serializer is None:
        yield error(
            106,
            f"Collection {name!r}: {named}, the relation to rows that a serializer shows, but "
            "there is no 'serializer'.",
            f"Name what is shown in 'fields', such as '{path}.name', or the label of a model if "
            "the permission reads it.",
        )
        return
    try:
        relation = resolve_relation(collection.concrete_model, path)
    except InvalidRelatedField as problem:
        yield error(
            106,
            f"Collection {name!r}: {named}: {problem}",
            "A path in 'depends_on' consists of relations, and ends with the one that leads to "
            "the rows that the serializer shows.",
        )
        return
    if collection.durable is False:
        yield error(
            107,
            f"Collection {name!r}: {named}, and 'durable' is False: without a log, documents "
            "are not sent again when such a row changes.",
            "Set 'durable' to True, or leave it out.",
        )
    for model in dict.fromkeys(hop.model for hop in relation.hops):
        yield from check_table(name, collection, model, f"{named}, which reads {model._meta.label}")


def check_table(
    name: str, collection: Collection, model: type[models.Model], named: str
) -> Iterator[CheckMessage]:
    """Check that changes of a model's table can be captured. ``named`` says what names it."""
    refused = refusal(model)
    if refused is not None:
        reason, hint = refused
        yield error(102, f"Collection {name!r}: {named}, {reason}.", hint)
    elif database_for(model) != collection.database:
        yield error(
            103,
            f"Collection {name!r} is in database {collection.database!r}, and "
            f"{model._meta.label!r} in {database_for(model)!r}.",
            "A collection can depend on tables of its own database only. Leave it out, and "
            "call permissions_changed when its rows change.",
        )


def refusal(model: type[models.Model]) -> tuple[str, str] | None:
    """Return why changes of a model's table cannot be captured, and a hint; None if they can."""
    meta = model._meta
    if meta.proxy:
        concrete = meta.concrete_model
        assert concrete is not None
        return "a proxy model", f"Name {concrete._meta.label!r}, which has the table."
    if meta.swapped:
        return "which is replaced by another model", f"Name {meta.swapped!r}."
    if not meta.managed:
        return (
            "whose table or view Django does not manage",
            "Name the models whose tables a view shows, or call permissions_changed when its rows "
            "change.",
        )
    if meta.app_label == LogEvent._meta.app_label:
        return "a table of this app", "Leave it out."
    secret = [key for key in key_names(model) if is_secret_looking(key)]
    if secret:
        return (
            f"whose key {secret[0]!r} looks secret and would be in the log",
            "Leave it out, and call permissions_changed when its rows change.",
        )
    return None

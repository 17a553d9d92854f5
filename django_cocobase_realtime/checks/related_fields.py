"""Checks of related fields in the option ``fields`` of a collection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from django.core.checks import CheckMessage

from ..declarations.collection import Collection
from ..declarations.related_fields import InvalidRelatedField, RelatedField, resolve
from ..utils.transactions import database_for
from .base import error
from .dependencies import refusal

_PATH_HINT = (
    "Name relations as in lookups of the ORM, separated by '.', and a field at the end. After "
    "a file field, 'url' is the URL of the file."
)


def is_related_name(collection: Collection, name: str) -> bool:
    """Return whether a name in ``fields`` is checked here, because it is meant as a path."""
    try:
        return resolve(collection.concrete_model, name) is not None
    except InvalidRelatedField:
        return True


def check_related_fields(name: str, collection: Collection) -> Iterator[CheckMessage]:
    """Check the names in ``fields`` that lead to related rows."""
    fields: list[RelatedField] = []
    for path in _names(collection):
        try:
            field = resolve(collection.concrete_model, path)
        except InvalidRelatedField as problem:
            if collection.serializer is None:
                text = f"Collection {name!r}: 'fields' names {path!r}: {problem}"
                yield error(6, text, _PATH_HINT)
            continue
        if field is None or (collection.serializer is not None and "." not in path):
            continue
        fields.append(field)
        yield from _check_tables(name, collection, field)
    yield from _check_together(name, collection, fields)


def _names(collection: Collection) -> Sequence[str]:
    """Return the option ``fields``; nothing if it is not a list of names, which is reported."""
    names = collection.fields or ()
    is_list = not isinstance(names, str) and all(isinstance(name, str) for name in names)
    return names if is_list else ()


def _check_tables(name: str, collection: Collection, field: RelatedField) -> Iterator[CheckMessage]:
    """Check that changes of the tables on the way can be followed."""
    for hop in field.hops:
        reason = refusal(hop.model)
        start = f"Collection {name!r}: 'fields' names {field.name!r}, which leads to {hop.label!r}"
        if reason is not None:
            yield error(102, f"{start}, {reason[0]}.", reason[1])
        elif database_for(hop.model) != collection.database:
            yield error(
                103,
                f"{start} in database {database_for(hop.model)!r}. The collection is in "
                f"{collection.database!r}.",
                "A document can show rows of its own database only. Leave it out.",
            )


def _check_together(
    name: str, collection: Collection, fields: list[RelatedField]
) -> Iterator[CheckMessage]:
    names = [field.name for field in fields]
    if fields and collection.serializer is not None:
        yield error(
            105,
            f"Collection {name!r} has a serializer, and 'fields' names related fields: {names}.",
            "A serializer shows related rows itself. Remove these names, or the serializer.",
        )
    elif fields and collection.durable is False:
        yield error(
            105,
            f"Collection {name!r} shows related rows ({names}), and 'durable' is False.",
            "Without a log, clients would keep values that have changed. Set 'durable' to True, or "
            "remove these names.",
        )
    several = {field.many: field.name for field in fields if field.many is not None}
    if len(several) > 1:
        yield error(
            105,
            f"Collection {name!r}: 'fields' has lists of more than one relation: "
            f"{sorted(several.values())}.",
            "A document can have lists of one relation. Declare a collection for the others.",
        )

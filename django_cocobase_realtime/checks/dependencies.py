"""Checks of the tables that collections depend on."""

from __future__ import annotations

from collections.abc import Iterator

from django.apps import apps
from django.core.checks import CheckMessage
from django.db import models

from ..declarations.collection import Collection
from ..declarations.image_fields import is_secret_looking, key_names
from ..models import LogEvent
from ..utils.transactions import database_for
from .base import error, warning


def check_depends_on(name: str, collection: Collection) -> Iterator[CheckMessage]:
    """Check the option ``depends_on`` of a collection."""
    labels = collection.depends_on
    if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
        yield error(4, f"Collection {name!r}: 'depends_on' must be a list of labels of models.")
        return
    for label in labels:
        try:
            model = apps.get_model(label)
        except (LookupError, ValueError):
            yield error(
                101,
                f"Collection {name!r}: 'depends_on' names {label!r}, which is not a model.",
                "Write it as 'app_label.Model', or 'app_label.Model_field' for the table of a "
                "many-to-many field, and check that the app is in INSTALLED_APPS.",
            )
            continue
        refusal = _refusal(model)
        if refusal is not None:
            reason, hint = refusal
            yield error(102, f"Collection {name!r}: 'depends_on' names {label!r}, {reason}.", hint)
        elif database_for(model) != collection.database:
            yield error(
                103,
                f"Collection {name!r} is in database {collection.database!r}, and {label!r} in "
                f"{database_for(model)!r}.",
                "A collection can depend on tables of its own database only. Leave it out, and "
                "call permissions_changed when its rows change.",
            )
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


def _refusal(model: type[models.Model]) -> tuple[str, str] | None:
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

"""Run a script on unwatched and on watched models, and compare the log with the tables."""

from contextlib import contextmanager

from django.apps import apps
from django.db import connections, models
from django.test import override_settings

from django_cocobase_realtime.declarations.dependency_table import is_hidden, label_of
from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.declarations.serialization import raw_column
from django_cocobase_realtime.filters import Row, parse
from django_cocobase_realtime.filters.orm import to_q
from django_cocobase_realtime.log.decoding import FIELDS, changes_from_rows
from django_cocobase_realtime.models import LogEvent


@contextmanager
def watching(*watched_models, **options):
    """Watch these models within the block; a collection has the lower-case name of its model."""
    collections = {
        model._meta.model_name: {"model": model._meta.label, **options} for model in watched_models
    }
    with override_settings(COCOBASE_REALTIME={"COLLECTIONS": collections}):
        yield


def logged(collection=None, using="default"):
    """Return the changes in the log, in the order of their ids."""
    rows = LogEvent.objects.using(using).order_by("id")
    if collection is not None:
        rows = rows.filter(collection=collection)
    by_collection = {}
    for row in rows.values_list(*FIELDS):
        by_collection.setdefault(row[FIELDS.index("collection")], []).append(row)
    changes = {
        row[0]: change
        for group in by_collection.values()
        for row, change in zip(
            group,
            changes_from_rows(using, group, epoch="", seqs=[0] * len(group)),
            strict=True,
        )
    }
    return [changes[id] for id in sorted(changes)]


def summary(*collections):
    """Return (collection, op, names of changed fields) of each logged change."""
    return [
        (change.collection, change.op, change.changed)
        for change in logged()
        if not collections or change.collection in collections
    ]


def forget_logged():
    """Empty the log."""
    LogEvent.objects.all().delete()


def table_images(collection, using="default"):
    """Return the images of all rows in the collection's table, by document id."""
    codec, model = collection.codec, collection.concrete_model
    keys = [str(field.attname) for field in model._meta.pk_fields]
    queryset = models.QuerySet(model, using=using).order_by()
    columns = {
        f"image_{attname}": raw_column(models.F(attname), name in codec.raw_names)
        for name, attname, _ in codec._encoders
    }
    images = {}
    for row in queryset.values(**columns):
        values = {name.removeprefix("image_"): value for name, value in row.items()}
        key = tuple(values[name] for name in keys)
        images[codec.document_id(key if len(key) > 1 else key[0])] = codec.image(values)
    return images


def assert_log_gives_tables(using="default"):
    """Replay the log and compare it with the table of each collection and dependency table."""
    for collection in registry.captured():
        rows = {}
        for change in logged(collection.stream, using):
            if is_hidden(change.collection) and label_of(change.document_id)[0] != collection.name:
                continue
            context = f"{collection.name} {change.document_id}"
            if change.op == "created":
                assert change.document_id not in rows, f"{context} is created twice"
            else:
                assert change.document_id in rows, f"{context} is {change.op}, but unknown"
                if change.before is not None:
                    known = rows[change.document_id]
                    assert change.before == known, f"{context}: {change.before} is not {known}"
            if change.op == "deleted":
                del rows[change.document_id]
            else:
                rows[change.document_id] = change.after
        images = table_images(collection, using)
        for key in {*rows, *images}:
            in_log, in_table = rows.get(key), images.get(key)
            assert in_log == in_table, f"{collection.name} {key}: {in_log} is not {in_table}"


def assert_equality_filters_agree(collection, images, names):
    """Compare filters by the values of fields in memory, on decoded images, and in the database.

    ``images`` are those of all rows of the table, by document id.
    """
    model, schema = collection.concrete_model, collection.schema
    for image in images.values():
        for name in names:
            if image[name] is None:
                continue
            equal = parse({name: image[name]}, schema)
            in_memory = {key for key, other in images.items() if equal.matches(Row(other, schema))}
            in_database = models.QuerySet(model).filter(to_q(equal, model, "default"))
            assert in_memory == {str(key) for key in in_database.values_list("pk", flat=True)}, name


def outcome(script):
    """Return what a script returns or raises, in a form that can be compared."""
    try:
        return "returned", script()
    except Exception as error:
        return "raised", type(error), str(error)


def clear_tables(using="default"):
    """Delete all rows of the test application and of the log, without signals."""
    connection = connections[using]
    tables = [
        model._meta.db_table
        for model in apps.get_app_config("capture_app").get_models(include_auto_created=True)
    ]
    flush = connection.ops.sql_flush(
        _no_style(), [*tables, LogEvent._meta.db_table], reset_sequences=True, allow_cascade=False
    )
    connection.ops.execute_sql_flush(flush)


def _no_style():
    from django.core.management.color import no_style

    return no_style()

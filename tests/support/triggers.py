"""Watch models by triggers, which exist within a block only."""

import io
from contextlib import contextmanager

from django.conf import settings
from django.core.management import call_command
from django.db import connections
from django.test import override_settings

from django_cocobase_realtime.capture.triggers import by_triggers, catalog, install
from django_cocobase_realtime.capture.triggers.installation import remove_named
from tests.support.watching import watching


@contextmanager
def watching_by_triggers(*watched_models, **options):
    """Watch these models by triggers; collections are named as by `watching`."""
    with watching(*watched_models, capture="triggers", **options), installed_triggers():
        yield


@contextmanager
def watching_by_triggers_of(**watched_models):
    """Watch models by triggers that are not in the registry of apps, as collections of a name."""
    collections = {
        name: {"model": model, "capture": "triggers"} for name, model in watched_models.items()
    }
    with override_settings(COCOBASE_REALTIME={"COLLECTIONS": collections}), installed_triggers():
        yield


@contextmanager
def created_tables(*models, using="default"):
    """Create the tables of models for the duration of the block."""
    with connections[using].schema_editor() as editor:
        for model in models:
            editor.create_model(model)
    try:
        yield
    finally:
        with connections[using].schema_editor() as editor:
            for model in reversed(models):
                editor.delete_model(model)


@contextmanager
def installed_triggers(using="default"):
    """Install the triggers of all collections in a database that are captured by them."""
    try:
        for collection in by_triggers(using):
            install(collection)
        yield
    finally:
        remove_all(using)


def remove_all(using="default"):
    """Drop all triggers of the app in a database."""
    remove_named(using, catalog.installed(using))


def run_command(*args):
    """Return the output of ``realtime_triggers`` with these arguments."""
    out = io.StringIO()
    call_command("realtime_triggers", *args, stdout=out)
    return out.getvalue()


def execute(sql, params=None, using="default"):
    """Execute a statement, and return its rows if it has any."""
    with connections[using].cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else None


def is_postgres(using="default"):
    return settings.DATABASES[using]["ENGINE"].endswith("postgresql")

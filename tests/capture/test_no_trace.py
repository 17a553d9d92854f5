"""Each script has the same effects on unwatched and on watched models, and the log is complete.

Compared are the return value or exception, the number of queries, and all rows. Replaying the log
must give the tables.
"""

import pytest
from django.apps import apps
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from tests.capture.scripts import SCRIPTS
from tests.support.watching import (
    assert_log_gives_tables,
    clear_tables,
    outcome,
    watching,
)

pytestmark = pytest.mark.django_db(transaction=True)

ALL = tuple(apps.get_app_config("capture_app").get_models())


def run(function, atomic):
    clear_tables()
    with CaptureQueriesContext(connection) as queries:
        if atomic:
            with transaction.atomic():
                result = outcome(function)
                if result[0] == "raised":
                    transaction.set_rollback(True)
        else:
            result = outcome(function)
    rows = {
        model.__name__: list(
            model._base_manager.order_by("pk").values(
                *(f.attname for f in model._meta.concrete_fields if "_at" not in f.name)
            )
        )
        for model in ALL
    }
    return result, len(queries), rows


@pytest.mark.parametrize("atomic", [False, True], ids=["autocommit", "atomic"])
@pytest.mark.parametrize("function", SCRIPTS, ids=lambda function: function.__name__)
def test_script_has_same_effects_watched_and_is_logged(function, atomic):
    unwatched = run(function, atomic)
    with watching(*ALL):
        watched = run(function, atomic)
        assert watched == unwatched
        assert_log_gives_tables()

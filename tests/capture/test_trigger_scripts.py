"""The scripts of `test_no_trace` by triggers: same effects as unwatched, and a complete log.

Compared are the return value or exception, the number of queries, and all rows. Replaying the log
must give the tables.
"""

import pytest

from django_cocobase_realtime.models import LogEvent
from tests.capture.scripts import SCRIPTS
from tests.capture.test_no_trace import ALL, run
from tests.support.triggers import installed_triggers
from tests.support.watching import assert_log_gives_tables, watching

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module", autouse=True)
def _triggers(django_db_setup, django_db_blocker):
    # creating the triggers of all models takes longer than most scripts
    with django_db_blocker.unblock(), watching(*ALL, capture="triggers"), installed_triggers():
        yield


@pytest.mark.parametrize("atomic", [False, True], ids=["autocommit", "atomic"])
@pytest.mark.parametrize("function", SCRIPTS, ids=lambda function: function.__name__)
def test_script_has_same_effects_with_triggers_and_is_logged(function, atomic):
    with watching():
        unwatched = run(function, atomic)
    with watching(*ALL, capture="triggers"):
        assert run(function, atomic) == unwatched
        images = LogEvent.objects.exclude(after=None).values_list("after", flat=True)
        assert {image[0] for image in images} <= {"["}, "The ORM's statements were captured."
        assert_log_gives_tables()

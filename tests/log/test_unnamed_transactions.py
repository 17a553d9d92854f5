"""Events of SQLite's triggers, which know no transaction, get one when they are numbered."""

import pytest
from django.db import connection, connections

from django_cocobase_realtime.api import notify_change
from django_cocobase_realtime.log.reader import read_events
from django_cocobase_realtime.log.sequencer import BATCH_SIZE, sequence
from django_cocobase_realtime.models import LogEvent
from tests.app.models import Item

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connections["default"].vendor != "sqlite", reason="SQLite's triggers"),
]


@pytest.fixture
def _installed(settings):
    from django.core.management import call_command

    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"items": {"model": "app.Item", "capture": "triggers"}}
    }
    call_command("realtime_triggers", "install", verbosity=0)
    yield
    call_command("realtime_triggers", "remove", verbosity=0)


def execute(sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)


def number():
    """Number all events; return (operation, name of the item, transaction) of each."""
    result = sequence("default", "items")
    while result.more:
        result = sequence("default", "items")
    changes = read_events("default", "items", result.epoch, 0, 100_000)
    return [(c.op, (c.after or c.before)["name"], c.transaction) for c in changes]


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("count", [2, BATCH_SIZE + 1])
def test_events_that_are_read_together_are_one_transaction(count):
    values = ", ".join(f"('row {n}', 0)" for n in range(count))
    execute(f"INSERT INTO app_item (name, size) VALUES {values}")
    first = number()
    assert [name for _, name, _ in first] == [f"row {n}" for n in range(count)]
    assert len({transaction for *_, transaction in first}) == 1
    execute("INSERT INTO app_item (name, size) VALUES ('later', 0)")
    *_, (_, _, last) = number()
    assert last not in ("", first[0][2])
    assert not LogEvent.objects.filter(transaction_id="").exists()


@pytest.mark.usefixtures("_installed")
def test_event_of_the_app_keeps_its_place_between_those_of_triggers():
    execute("INSERT INTO app_item (name, size) VALUES ('old', 0)")
    item = Item.objects.get()
    execute("UPDATE app_item SET name = 'new'")
    notify_change("items", "updated", item)
    execute("UPDATE app_item SET name = 'newest'")
    events = number()
    assert [name for _, name, _ in events] == ["old", "new", "new", "newest"]
    first, second, third, fourth = (transaction for *_, transaction in events)
    assert first == second
    assert len({second, third, fourth}) == 3

"""Writes to the tables that collections depend on are logged in the hidden stream."""

from io import StringIO

import pytest
from django.contrib.auth.models import Group as AuthGroup
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection, transaction

from django_cocobase_realtime import notify_change
from django_cocobase_realtime.capture.triggers import is_installed, left_over, remove
from django_cocobase_realtime.declarations.dependency_table import hidden_stream, label_of
from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.log.retention import trim
from django_cocobase_realtime.log.sequencer import sequence
from django_cocobase_realtime.models import LogEvent, Stream
from django_cocobase_realtime.operations import RealtimeTriggers
from django_cocobase_realtime.pubsub.broker import broker
from django_cocobase_realtime.testing import capture_events
from tests.app.models import Author, Diner, Place, Post, Restaurant, Tag
from tests.capture_app.models import Group, Membership, Person, Ticket
from tests.support.queries import recorded_statements
from tests.support.triggers import execute, installed_triggers, run_command
from tests.support.watching import assert_log_gives_tables, forget_logged, logged

# without commits, unless a test needs them, because it is faster
pytestmark = pytest.mark.django_db
COMMITTED = pytest.mark.django_db(transaction=True)

HIDDEN = hidden_stream("default")
DEPENDS_ON = [
    "capture_app.Membership",
    "capture_app.Group",
    "app.Post_tags",
    "auth.User_groups",
    "app.Diner",
    "app.Author",
]
TICKETS = {"model": "capture_app.Ticket", "depends_on": DEPENDS_ON}
# collections of models that others depend on, among them one whose rows are in three tables
SHOWN = {
    "members": {"model": "capture_app.Membership", "fields": ["role"], "track": False},
    "groups": "capture_app.Group",
    "diners": "app.Diner",
    "posts": "app.Post",
}


@pytest.fixture(params=["signals", "triggers"])
def capture(request, settings):
    """Declare collections, captured in one of the ways, until the end of the test."""
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"tickets": TICKETS}, "CAPTURE": request.param}
    with installed_triggers():
        yield request.param


@pytest.fixture(params=["dependencies", "dependencies that are collections"])
def captured(request, capture, settings):
    """The same for dependencies of which some are collections as well."""
    if request.param == "dependencies":
        yield
        return
    collections = {"tickets": TICKETS, **SHOWN}
    settings.COCOBASE_REALTIME = {"COLLECTIONS": collections, "CAPTURE": capture}
    with installed_triggers():
        yield


def hidden():
    """Return label and operation of each change in the hidden stream."""
    return [(label_of(change.document_id)[0], change.op) for change in logged(HIDDEN)]


class FakeEditor:
    """The attributes of a schema editor; SQLite opens none in a transaction."""

    connection = connection
    collect_sql = False


class Rows:
    """A group with two members, a post with a tag, a user in a group, a diner, an author."""

    def __init__(self):
        self.group, self.other = (Group.objects.create(name=name) for name in "ab")
        self.ada, self.bob = (Person.objects.create(name=name) for name in ("ada", "bob"))
        self.membership = Membership.objects.create(group=self.group, person=self.ada)
        Membership.objects.create(group=self.group, person=self.bob)
        self.post, self.tag = Post.objects.create(title="a"), Tag.objects.create(name="x")
        self.post.tags.add(self.tag)
        self.user = User.objects.create(username="ada")
        self.staff = AuthGroup.objects.create(name="staff")
        self.user.groups.add(self.staff)
        self.diner = Diner.objects.create(name="b", stars=1)


MEMBER, GROUP, TAGS, IN_GROUP = DEPENDS_ON[:4]
PLACE, RESTAURANT, DINER = "app.Place", "app.Restaurant", "app.Diner"


def save(row, **values):
    for name, value in values.items():
        setattr(row, name, value)
    row.save()


WRITES = {
    "create": (lambda rows: Membership.objects.create(group=rows.other, person=rows.ada), [MEMBER]),
    "save": (lambda rows: save(rows.membership, group=rows.other), [MEMBER]),
    "update_fields": (
        lambda rows: (
            setattr(rows.membership, "role", "x"),
            rows.membership.save(update_fields=["role"]),
        ),
        [MEMBER],
    ),
    "delete": (lambda rows: rows.membership.delete(), [MEMBER]),
    "cascade": (lambda rows: rows.group.delete(), [MEMBER, MEMBER, GROUP]),
    "cascade from a table that is not captured": (lambda rows: rows.ada.delete(), [MEMBER]),
    "queryset's update": (lambda rows: Membership.objects.update(role="x"), [MEMBER] * 2),
    "update by join": (
        lambda rows: Membership.objects.filter(person__name="bob").update(group=rows.other),
        [MEMBER],
    ),
    "queryset's delete": (lambda rows: Membership.objects.all().delete(), [MEMBER] * 2),
    "bulk_create": (
        lambda rows: Membership.objects.bulk_create(
            Membership(group=rows.other, person=person) for person in (rows.ada, rows.bob)
        ),
        [MEMBER] * 2,
    ),
    "upsert": (
        lambda rows: Membership.objects.bulk_create(
            [Membership(pk=rows.membership.pk, group=rows.other, person=rows.ada)],
            update_conflicts=True,
            unique_fields=["id"],
            update_fields=["group"],
        ),
        [MEMBER],
    ),
    "bulk_update": (
        lambda rows: Membership.objects.bulk_update(
            [Membership(pk=rows.membership.pk, role="x")], ["role"]
        ),
        [MEMBER],
    ),
    "get_or_create": (
        lambda rows: Membership.objects.get_or_create(group=rows.other, person=rows.bob),
        [MEMBER],
    ),
    "members with values": (
        lambda rows: rows.other.members.add(rows.ada, through_defaults={"role": "x"}),
        [MEMBER],
    ),
    "tags added": (lambda rows: rows.post.tags.add(Tag.objects.create(name="y")), [TAGS]),
    "tags added again": (lambda rows: rows.post.tags.add(rows.tag), []),
    "tags set": (lambda rows: rows.post.tags.set([Tag.objects.create(name="y")]), [TAGS] * 2),
    "tags cleared from the other side": (lambda rows: rows.tag.post_set.clear(), [TAGS]),
    "groups of a user": (lambda rows: rows.user.groups.remove(rows.staff), [IN_GROUP]),
    "user deleted": (lambda rows: rows.user.delete(), [IN_GROUP]),
    "child created": (
        lambda rows: Diner.objects.create(name="c", stars=2),
        [PLACE, RESTAURANT, DINER],
    ),
    "child saved": (lambda rows: save(rows.diner, neon=True), [PLACE, RESTAURANT, DINER]),
    "child's column updated": (lambda rows: Diner.objects.update(neon=True), [DINER]),
    "column of a child's parent updated": (lambda rows: Diner.objects.update(name="c"), [PLACE]),
    "columns of several tables updated": (
        lambda rows: Diner.objects.update(neon=True, name="c"),
        [DINER, PLACE],
    ),
    "parent updated": (lambda rows: Place.objects.update(name="c"), [PLACE]),
    "parent created": (lambda rows: Restaurant.objects.create(name="c"), [PLACE, RESTAURANT]),
    "child deleted": (lambda rows: rows.diner.delete(), [DINER, RESTAURANT, PLACE]),
    "parent deleted": (lambda rows: Place.objects.all().delete(), [DINER, RESTAURANT, PLACE]),
    "secret updated": (lambda rows: Author.objects.create(name="a"), ["app.Author"]),
}


def test_writes_are_logged_with_the_rows_before_and_after(captured):
    wrong = {}
    for name, (write, labels) in WRITES.items():
        with transaction.atomic():
            rows = Rows()
            before = len(hidden())
            write(rows)
            written = sorted(label for label, _ in hidden()[before:])
            if written != sorted(labels):
                wrong[name] = written
            # also that each image before is the one that was logged last
            assert_log_gives_tables()
            transaction.set_rollback(True)
    assert wrong == {}


def test_images_have_all_columns_and_the_names_of_those_that_changed(captured):
    rows = Rows()
    forget_logged()
    rows.membership.role = "owner"
    rows.membership.save()
    (change,) = logged(HIDDEN)
    old = {
        "id": str(rows.membership.pk),
        "group": str(rows.group.pk),
        "person": str(rows.ada.pk),
        "role": "member",
    }
    assert change.document_id == f"capture_app.Membership {rows.membership.pk}"
    assert (change.before, change.after) == (old, {**old, "role": "owner"})
    assert change.changed == ("role",)


def test_values_that_look_secret_are_not_logged(capture):
    author = Author.objects.create(name="ada", password="geheim")
    Author.objects.update(password="geheimer")
    (created, updated) = logged(HIDDEN)
    assert created.after == {"id": str(author.pk), "name": "ada"}
    # that the row was written is seen nevertheless
    assert (updated.op, updated.changed) == ("updated", ())
    assert not LogEvent.objects.filter(after__contains="geheim").exists()
    assert not LogEvent.objects.filter(before__contains="geheim").exists()


def test_writes_that_are_rolled_back_are_not_logged(capture):
    rows = Rows()
    forget_logged()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        rows.group.delete()
        assert hidden()
        raise ZeroDivisionError
    assert hidden() == []
    with transaction.atomic():
        Membership.objects.filter(person=rows.bob).delete()
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            Membership.objects.update(role="x")
            raise ZeroDivisionError
    assert hidden() == [(MEMBER, "deleted")]


def test_change_is_logged_in_the_transaction_of_the_row(capture):
    rows = Rows()
    forget_logged()
    with transaction.atomic():
        Ticket.objects.create(title="t")
        rows.membership.delete()
    ticket, membership = LogEvent.objects.order_by("id")
    assert [ticket.collection, membership.collection] == ["tickets", HIDDEN]
    if connection.vendor == "postgresql" or capture == "signals":
        assert ticket.transaction_id == membership.transaction_id


def test_model_that_is_a_collection_as_well_is_logged_as_both(capture, settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"tickets": TICKETS, **SHOWN},
        "CAPTURE": capture,
    }
    with installed_triggers():
        rows = Rows()
        forget_logged()
        rows.membership.role = "owner"
        rows.membership.save()
    (shown,) = logged("members")
    (change,) = logged(HIDDEN)
    key = str(rows.membership.pk)
    assert (shown.document_id, shown.before, shown.after["role"]) == (key, None, "owner")
    assert set(shown.after) == {"id", "role"}
    assert change.before["role"] == "member"
    # the group shows a many-to-many field that is kept in the table
    assert logged("groups") == []


def test_dependency_is_logged_by_triggers_and_its_collection_by_the_orm(settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "tickets": {**TICKETS, "capture": "triggers"},
            "members": {"model": "capture_app.Membership", "capture": "signals"},
            "diners": {"model": "app.Diner", "capture": "signals"},
        }
    }
    with installed_triggers():
        rows = Rows()
        forget_logged()
        rows.membership.delete()
        rows.diner.save()
    assert sorted((change.collection, change.op) for change in logged()) == [
        *[(HIDDEN, "deleted")],
        *[(HIDDEN, "updated")] * 3,
        ("diners", "updated"),
        ("members", "deleted"),
    ]


@pytest.mark.parametrize("mode", ["signals", "triggers"])
def test_nothing_is_captured_without_depends_on(mode, settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"tickets": "capture_app.Ticket"},
        "CAPTURE": mode,
    }
    with installed_triggers():
        rows = Rows()
        rows.group.delete()
        rows.diner.delete()
        assert logged() == []
        with recorded_statements() as statements:
            Membership.objects.create(group=rows.other, person=rows.ada)
    assert len(statements) == 1


def test_write_costs_one_insert_in_the_log(settings):
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"tickets": TICKETS}}
    rows = Rows()
    with transaction.atomic(), recorded_statements() as statements:
        Membership.objects.create(group=rows.other, person=rows.ada)
    assert len(statements) == 2


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_rows_of_another_database_are_not_logged(settings, monkeypatch, caplog):
    published = []
    monkeypatch.setattr(broker, "publish", published.append)
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"tickets": TICKETS}}
    Group.objects.using("other").create(name="elsewhere")
    assert published == logged() == logged(using="other") == caplog.records == []


@COMMITTED
def test_change_is_announced_without_being_an_event_of_tests(capture, monkeypatch):
    rows = Rows()
    announced = []
    monkeypatch.setattr(broker, "notify", lambda streams, using: announced.extend(streams))
    with capture_events() as events:
        rows.membership.delete()
        Ticket.objects.create(title="t")
    assert announced == [HIDDEN, "tickets"]
    assert [event.collection for event in events] == ["tickets"]


@COMMITTED
def test_events_are_numbered_and_trimmed(capture):
    Rows()
    count = LogEvent.objects.filter(collection=HIDDEN).count()
    changes = sequence("default", HIDDEN).changes
    assert [change.seq for change in changes] == list(range(1, count + 1))
    assert changes[-1].after["neon"] is False
    epoch = Stream.objects.get(collection=HIDDEN).epoch
    assert trim("default", max_age=None, max_events=2)[HIDDEN] == count - 2
    assert Stream.objects.get(collection=HIDDEN).floor == count - 2
    call_command("realtime_rotate_epoch", "tickets", stdout=StringIO())
    assert Stream.objects.get(collection=HIDDEN).epoch == epoch
    call_command("realtime_rotate_epoch", stdout=StringIO())
    assert Stream.objects.get(collection=HIDDEN).epoch != epoch


def test_notify_change_logs_what_was_not_captured(settings):
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"tickets": TICKETS, "diners": "app.Diner"}}
    rows = Rows()
    forget_logged()
    execute(f"UPDATE capture_app_membership SET role = 'x' WHERE id = {rows.membership.pk}")
    notify_change(MEMBER, "updated", rows.membership)
    (change,) = logged()
    assert (change.collection, change.before, change.after["role"]) == (HIDDEN, None, "x")
    notify_change(MEMBER, "deleted", rows.membership)
    assert logged()[-1].before["person"] == str(rows.ada.pk)
    forget_logged()
    notify_change("diners", "updated", rows.diner)
    assert [change.document_id for change in logged("diners")] == [str(rows.diner.pk)]
    assert sorted(label for label, _ in hidden()) == sorted([PLACE, RESTAURANT, DINER])
    with pytest.raises(LookupError):
        notify_change("capture_app.Person", "updated", rows.ada)
    with pytest.raises(TypeError, match="Membership"):
        notify_change(MEMBER, "updated", rows.ada)


def test_triggers_log_raw_sql(settings):
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"tickets": TICKETS}, "CAPTURE": "triggers"}
    with installed_triggers():
        rows = Rows()
        forget_logged()
        execute(f"DELETE FROM capture_app_membership WHERE id = {rows.membership.pk}")
        execute("UPDATE app_place SET name = 'c'")
        assert hidden() == [(MEMBER, "deleted"), (PLACE, "updated")]


def test_migration_operation_installs_triggers_of_dependencies(settings):
    dependent = {**TICKETS, "depends_on": [MEMBER], "capture": "triggers"}
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"tickets": dependent}}
    (table,) = registry.dependencies("default")
    operation = RealtimeTriggers("tickets")
    operation.database_forwards("app", FakeEditor(), None, None)
    assert is_installed(table)
    operation.database_backwards("app", FakeEditor(), None, None)
    assert is_installed(table)  # another collection may depend on it
    assert not is_installed(registry.get("tickets"))
    remove(table)


def test_commands_install_and_remove_triggers_of_dependencies(settings):
    dependent = {**TICKETS, "depends_on": [MEMBER], "capture": "triggers"}
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"tickets": dependent}}
    (table,) = registry.dependencies("default")
    assert run_command("install", "tickets") == "tickets: installed\n" + f"{MEMBER}: installed\n"
    assert is_installed(table)
    assert run_command("status") == "tickets: installed\n" + f"{MEMBER}: installed\n"
    assert run_command("remove", "tickets") == "tickets: removed\n"
    assert is_installed(table)
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"tickets": {**dependent, "depends_on": []}}}
    assert len(left_over("default")) == 1
    assert run_command("install") == "tickets: installed\n"
    assert not is_installed(table)
    run_command("remove")

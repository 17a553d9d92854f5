"""Checks of the option ``depends_on``."""

import pytest

from django_cocobase_realtime.capture.triggers import install
from django_cocobase_realtime.checks import check_database, check_settings, databases
from django_cocobase_realtime.declarations.registry import registry
from tests.capture_app.models import Membership, Team
from tests.relations_app.models import Organization
from tests.support.triggers import remove_all


class KeepsTeamsElsewhere:
    """A router that sends teams to the database "other"."""

    def db_for_write(self, model, **hints):
        return "other" if model is Team else None

    db_for_read = db_for_write


@pytest.fixture
def problems(settings):
    """Return the function that checks a collection with ``depends_on``."""

    def check(depends_on, **options):
        collection = {"model": "capture_app.Ticket", "depends_on": depends_on, **options}
        settings.COCOBASE_REALTIME = {"COLLECTIONS": {"tickets": collection}}
        return [
            (message.id.removeprefix("cocobase_realtime."), f"{message.msg} {message.hint}")
            for message in check_settings()
        ]

    return check


def test_tables_that_can_be_captured_are_no_problem(problems):
    assert problems(["capture_app.Team", "auth.User_groups", "app.Diner"]) == []
    assert problems((), durable=False) == []


def test_option_must_be_a_list_of_labels(problems):
    for wrong in ("capture_app.Team", [Team]):
        ((id, text),) = problems(wrong)
        assert id == "E004"
        assert "'depends_on'" in text


@pytest.mark.parametrize("label", ["capture_app.Nothing", "nothing.Team", "Team"])
def test_label_must_be_that_of_a_model(label, problems):
    ((id, text),) = problems(["capture_app.Team", label])
    assert id == "E101"
    assert repr(label) in text


def test_table_must_be_one_that_is_captured(problems, monkeypatch, settings):
    proxy = problems(["app.PublishedPost"])
    own = problems(["cocobase_realtime.ApiKey"])
    secret = problems(["sessions.Session"])
    monkeypatch.setattr(Team._meta, "managed", False)
    unmanaged = problems(["capture_app.Team"])
    settings.AUTH_USER_MODEL = "capture_app.Person"
    swapped = problems(["auth.User"])
    named = ["'app.Post'", "this app", "'session_key'", "does not manage", "'capture_app.Person'"]
    for messages, name in zip([proxy, own, secret, unmanaged, swapped], named, strict=True):
        ((id, text),) = messages
        assert id == "E102"
        assert name in text


def test_table_must_be_in_the_database_of_the_collection(problems, settings):
    settings.DATABASE_ROUTERS = [KeepsTeamsElsewhere()]
    ((id, text),) = problems(["capture_app.Membership", "capture_app.Team"])
    assert id == "E103"
    assert "'capture_app.Team' in 'other'" in text


@pytest.mark.parametrize("option", ["durable", "track"])
def test_collection_without_log_or_old_rows_is_reported(option, problems):
    ((id, text),) = problems(["capture_app.Team"], **{option: False})
    assert id == "W104"
    assert "fetch everything again" in text


def test_writes_to_tables_that_are_not_seen_are_named(problems):
    problems(["capture_app.Membership"])
    (info,) = databases.check_unseen_writes()
    assert "capture_app.Membership, capture_app.Ticket" in info.msg


@pytest.fixture
def serialized(problems):
    """Return the function that checks a collection with a serializer and ``depends_on``."""

    def check(*depends_on, model="relations_app.Ticket", **options):
        serializer = {"serializer": lambda ticket: {}, "model": model}
        return problems(depends_on, **(serializer | options))

    return check


def test_relations_that_a_serializer_shows_are_no_problem(serialized):
    assert serialized("assignee", "project.organization", "project__labels", "auth.Group") == []
    assert serialized("assignee.username", "bug", track=False) == []


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("project.nothing", "'nothing' is no field of relations_app.Project"),
        ("project.name.size", "'name' of relations_app.Project is no relation"),
        ("project.notes", "'notes' of relations_app.Project is a generic relation"),
    ],
)
def test_path_must_consist_of_relations(path, part, serialized):
    ((id, text),) = serialized(path)
    assert id == "E106"
    assert repr(path) in text
    assert part in text


def test_relation_needs_a_serializer_and_a_log(serialized):
    ((id, text),) = serialized("assignee", serializer=None)
    assert id == "E106"
    assert "'assignee.name'" in text
    ((id, text),) = serialized("assignee", durable=False)
    assert id == "E107"
    assert "'assignee'" in text


def test_tables_of_a_relation_must_be_captured(serialized, settings, monkeypatch):
    monkeypatch.setattr(Organization._meta, "managed", False)
    ((id, text),) = serialized("project.organization")
    assert id == "E102"
    assert "'project.organization', which reads relations_app.Organization, whose table" in text
    monkeypatch.undo()
    settings.DATABASE_ROUTERS = [KeepsTeamsElsewhere()]
    ((id, text),) = serialized("team", model="capture_app.Ticket")
    assert id == "E103"
    assert "'capture_app.Team' in 'other'" in text


@pytest.mark.django_db
def test_triggers_of_tables_must_be_installed(problems):
    problems(["capture_app.Membership"], capture="triggers")
    install(registry.get("tickets"))
    (message,) = check_database(databases=["default"])
    assert message.id == "cocobase_realtime.W014"
    assert repr(Membership._meta.label) in message.msg
    install(registry.dependency(Membership._meta.label))
    assert check_database(databases=["default"]) == []
    remove_all()

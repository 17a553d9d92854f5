"""The option ``depends_on`` names tables, and no collection can have their stream's name."""

import pytest

from django_cocobase_realtime.checks import check_settings
from django_cocobase_realtime.declarations.capture_mode import captured_by
from django_cocobase_realtime.declarations.dependency_table import (
    hidden_stream,
    is_hidden,
    label_of,
)
from django_cocobase_realtime.declarations.registry import UnknownCollection, registry

TICKETS = {"model": "capture_app.Ticket", "depends_on": ["app.Diner", "auth.User_groups"]}


@pytest.fixture
def declare(settings):
    def declare(collections, **others):
        settings.COCOBASE_REALTIME = {"COLLECTIONS": collections, **others}

    return declare


def test_models_are_named_with_their_parents(declare):
    declare({"tickets": TICKETS, "replies": "capture_app.Reply"})
    labels = ["app.Diner", "app.Restaurant", "app.Place", "auth.User_groups"]
    assert [table.label for table in registry.dependencies("default")] == labels
    assert registry.get("tickets").dependencies == tuple(labels)
    assert registry.get("replies").dependencies == ()
    assert registry.dependents("default")
    assert not registry.dependents("other")
    assert registry.dependencies("other") == []
    assert [captured.name for captured in registry.captured()] == ["tickets", "replies", *labels]
    declare({"tickets": "capture_app.Ticket"})
    assert not registry.dependents("default")
    assert [captured.name for captured in registry.captured()] == ["tickets"]


def test_log_is_needed_for_dependencies_of_a_collection_without_log(declare):
    declare({"tickets": {**TICKETS, "durable": False}})
    assert registry.log_databases() == ["default"]
    declare({"tickets": {"model": "capture_app.Ticket", "durable": False}})
    assert registry.log_databases() == []


def test_columns_are_those_of_the_table_that_are_neither_secret_nor_opaque(declare):
    depends_on = ["app.Diner", "app.Author", "app.Everything", "capture_app.NamedMembership"]
    declare({"tickets": {"model": "capture_app.Ticket", "depends_on": depends_on}})
    assert registry.dependency("app.Diner").columns == {
        "restaurant_ptr_id": "restaurant_ptr",
        "neon": "neon",
    }
    assert "password" not in registry.dependency("app.Author").columns
    everything = registry.dependency("app.Everything").columns
    assert {"text", "uuid", "integer", "double"} <= everything.keys()
    assert everything.keys().isdisjoint({"binary", "json"})
    named = registry.dependency("capture_app.NamedMembership").columns
    assert named == {"id": "id", "group_id": "group", "person_name": "person"}


def test_ids_in_the_hidden_stream_have_label_and_key(declare):
    depends_on = ["capture_app.Membership", "app.Seat"]
    declare({"tickets": {"model": "capture_app.Ticket", "depends_on": depends_on}})
    memberships, seats = registry.dependencies("default")
    assert memberships.codec.document_id(7) == "capture_app.Membership 7"
    assert label_of("capture_app.Membership 7") == ("capture_app.Membership", "7")
    id = seats.codec.document_id(("a b", 1))
    assert label_of(id) == ("app.Seat", '["a b",1]')
    assert seats.codec.key(id) == ("a b", 1)
    assert registry.logged(hidden_stream("default"), id) is seats
    assert registry.logged("tickets", "7") is registry.get("tickets")
    with pytest.raises(UnknownCollection):
        registry.logged(hidden_stream("default"), "app.Post 7")


def test_mode_of_capture_is_that_of_the_dependent_collections(declare):
    def mode(*captures, default="signals"):
        collections = {
            str(number): {**TICKETS, "capture": capture} for number, capture in enumerate(captures)
        }
        declare(collections, CAPTURE=default)
        (found,) = {captured_by(table) for table in registry.dependencies("default")}
        return found

    assert mode(None) == "signals"
    assert mode("signals", "triggers") == mode(None, "triggers") == "triggers"
    assert mode(None, default="triggers") == "triggers"
    assert mode("signals", default="triggers") == "signals"
    assert mode("signals", None, default="triggers") == "triggers"


def test_collection_cannot_have_the_name_of_a_hidden_stream(declare):
    hidden = hidden_stream("default")
    assert is_hidden(hidden)
    declare({"tickets": TICKETS})
    with pytest.raises(UnknownCollection):
        registry.get(hidden)
    declare({hidden: TICKETS})
    assert [m.id for m in check_settings()] == ["cocobase_realtime.E003"]
    declare({"tickets": {**TICKETS, "aliases": [hidden]}})
    assert [m.id for m in check_settings()] == ["cocobase_realtime.E003"]

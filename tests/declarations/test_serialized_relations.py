"""The option ``depends_on`` names labels of models, and relations that a serializer shows."""

import pytest

from django_cocobase_realtime.declarations.depends_on import parse_depends_on
from django_cocobase_realtime.declarations.registry import registry
from tests.relations_app.models import Ticket

APP = "relations_app"


def serialize(row):
    return {"title": str(row)}


@pytest.fixture
def declare(settings):
    def declare(*depends_on, model="relations_app.Ticket", **options):
        entry = {"model": model, "serializer": serialize, "depends_on": depends_on, **options}
        settings.COCOBASE_REALTIME = {"COLLECTIONS": {"tickets": entry}}
        return registry.get("tickets")

    return declare


def hops(collection, name):
    relation = collection.serialized_relations[name]
    return [(hop.label.rpartition(".")[2], hop.key, hop.lookup) for hop in relation.hops]


def test_name_is_a_label_or_a_relation():
    names = ("auth.User", "assignee", "project.organization", "nothing.Team", "Team", "nothing")
    labels, relations = parse_depends_on(Ticket, names)
    assert labels == ("auth.User", "nothing.Team", "Team", "nothing")
    assert relations == ("assignee", "project.organization")


def test_name_that_could_be_both_is_a_label(monkeypatch):
    """A path with ``__`` is never a label."""
    field = Ticket._meta.get_field("project")
    get_field = Ticket._meta.get_field
    monkeypatch.setattr(
        Ticket._meta, "get_field", lambda name: field if name == APP else get_field(name)
    )
    names = (f"{APP}.organization", f"{APP}__organization")
    assert parse_depends_on(Ticket, names) == ((names[0],), (names[1],))


def test_relations_are_dependencies_besides_the_labels(declare):
    collection = declare("app.Author", "assignee", "project.organization")
    names = ("app.Author", "auth.User", f"{APP}.Project", f"{APP}.Organization")
    assert collection.dependencies == names
    assert {table.label for table in registry.dependencies("default")} == set(names)
    assert registry.dependents("default")


def test_path_to_one_row_has_all_its_columns_and_the_links_on_the_way(declare):
    collection = declare("project__organization")
    relation = collection.serialized_relations["project__organization"]
    assert (relation.changed, relation.to_many) == ("project", False)
    project, organization = relation.hops
    assert project.columns == {"id", "organization"}
    assert organization.columns == {"id", "name", "slug", "flags", "owner"}
    assert hops(collection, "project__organization") == [
        ("Project", "id", "project_id"),
        ("Organization", "id", "project__organization_id"),
    ]


def test_path_to_a_column_has_this_one(declare):
    (user,) = declare("assignee.username").serialized_relations["assignee.username"].hops
    assert (user.label, user.columns) == ("auth.User", {"id", "username"})


def test_paths_with_several_relations_to_many_rows(declare):
    collection = declare("projects.labels", "projects.ticket", model=f"{APP}.Organization")
    assert all(relation.to_many for relation in collection.serialized_relations.values())
    assert hops(collection, "projects.labels") == [
        ("Project", "organization", "id"),
        ("Project_labels", "project", "projects__id"),
        ("Label", "id", "projects__labels__id"),
    ]
    assert hops(collection, "projects.ticket") == [
        ("Project", "organization", "id"),
        ("Ticket", "project", "projects__id"),
    ]


def test_parents_of_related_rows_are_followed(declare):
    assert hops(declare("bug"), "bug") == [
        ("Bug", "ticket_ptr", "id"),
        ("Ticket", "id", "bug__ticket_ptr_id"),
    ]


@pytest.mark.parametrize("options", [{"serializer": None}, {"durable": False}])
def test_without_serializer_or_log_nothing_is_followed(declare, options):
    collection = declare("assignee", **options)
    assert collection.serialized_relations == {}
    assert collection.dependencies == ()

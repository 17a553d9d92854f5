"""Related fields: the tables on the way to a value, the values, and mistakes in their names."""

import logging

import pytest
from django.contrib.auth.models import User

from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.declarations.related_fields import InvalidRelatedField, resolve
from django_cocobase_realtime.declarations.related_values import make_related
from tests.app.models import Diner, Place, Post, Restaurant, Tag
from tests.relations_app.models import (
    Attachment,
    Bug,
    Label,
    Organization,
    Project,
    Team,
    Ticket,
)
from tests.support.queries import recorded_statements

FIELDS = [
    "title",
    "assignee.username",
    "project.organization.name",
    "project.labels",
    "project.labels.name",
    "organization.name",
]


@pytest.fixture
def declare(settings):
    def declare(fields, model="relations_app.Ticket", **options):
        collection = {"model": model, "fields": fields, **options}
        settings.COCOBASE_REALTIME = {"COLLECTIONS": {"tickets": collection}}
        return registry.get("tickets")

    return declare


def hops(model, name):
    field = resolve(model, name)
    return [
        (hop.label.partition(".")[2], hop.key, hop.lookup, sorted(hop.columns))
        for hop in field.hops
    ]


# the tables on the way


def test_name_of_a_column_is_no_related_field():
    for name in ("title", "assignee", "nothing", "nothing.name"):
        assert resolve(Ticket, name) is None


def test_foreign_keys_are_followed():
    assert hops(Ticket, "project.organization.name") == [
        ("Project", "id", "project_id", ["id", "organization"]),
        ("Organization", "id", "project__organization_id", ["id", "name"]),
    ]
    assert resolve(Ticket, "project.organization.name").links == {"project"}
    assert hops(Ticket, "organization.name") == [
        ("Organization", "slug", "organization_id", ["name", "slug"])
    ]


def test_value_that_the_referring_row_has_needs_no_other_table():
    assert hops(Ticket, "assignee.id") == []
    assert resolve(Ticket, "assignee.pk").links == {"assignee"}
    assert hops(Ticket, "project.organization") == [
        ("Project", "id", "project_id", ["id", "organization"])
    ]


def test_many_to_many_relations_are_followed_from_both_sides():
    through = ("Project_labels", "project", "id", ["label", "project"])
    assert hops(Project, "labels") == [through]
    assert hops(Project, "labels.name") == [through, ("Label", "id", "labels__id", ["id", "name"])]
    assert hops(Label, "project.name") == [
        ("Project_labels", "label", "id", ["label", "project"]),
        ("Project", "id", "project__id", ["id", "name"]),
    ]
    assert hops(Label, "parents") == [
        ("Label_parents", "from_label", "id", ["from_label", "to_label"])
    ]


def test_reverse_relations_are_followed():
    assert hops(Project, "ticket.title") == [("Ticket", "project", "id", ["project", "title"])]
    assert resolve(Project, "ticket").to_many
    assert hops(Ticket, "bug.severity") == [("Bug", "ticket_ptr", "id", ["severity", "ticket_ptr"])]
    assert not resolve(Ticket, "bug").to_many


def test_tables_of_parents_are_followed():
    assert hops(Diner, "restaurant_ptr.name") == [
        ("Restaurant", "place_ptr", "restaurant_ptr_id", ["place_ptr"]),
        ("Place", "id", "restaurant_ptr__place_ptr_id", ["id", "name"]),
    ]
    assert hops(Bug, "project.name") == [("Project", "id", "project_id", ["id", "name"])]
    assert hops(Place, "restaurant.diner.neon")[-1] == (
        "Diner",
        "restaurant_ptr",
        "restaurant__place_ptr_id",
        ["neon", "restaurant_ptr"],
    )


def test_lookups_of_hops_find_the_documents(db):
    ticket, other = world(), Ticket.objects.create(title="other")
    names = ("project.organization.name", "organization.name", "project.labels.name")
    for field in (resolve(Ticket, name) for name in names):
        for hop in field.hops:
            row = hop.model.objects.values_list(hop.key, flat=True)
            found = Ticket.objects.filter(**{f"{hop.lookup}__in": list(row)}).distinct()
            assert list(found) == [ticket], hop
    assert other.pk


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("title.x", "'title' of relations_app.Ticket is no relation"),
        ("project.nothing", "'nothing' is no field of relations_app.Project"),
        ("project.notes", "'notes' of relations_app.Project is a generic relation"),
        ("project.labels.parents.name", "'parents' is the second relation to many rows"),
        ("project.organization.flags.x", "'flags' of relations_app.Organization is no relation"),
    ],
)
def test_wrong_name_is_refused_with_the_part_that_is_wrong(name, reason):
    with pytest.raises(InvalidRelatedField) as raised:
        resolve(Ticket, name)
    assert reason in str(raised.value)


# declarations


def test_tables_are_dependencies_and_links_are_in_images(declare):
    collection = declare(["title", "project.organization.name", "assignee.username"])
    assert collection.readable == ("title", "project.organization.name", "assignee.username")
    assert collection.dependencies == (
        "relations_app.Project",
        "relations_app.Organization",
        "auth.User",
    )
    assert set(collection.codec.fields) == {"id", "title", "project", "assignee"}
    assert registry.dependents("default")
    assert [table.label for table in registry.dependencies("default")] == [*collection.dependencies]
    assert declare(["title"]).dependencies == ()


def test_field_that_must_not_be_shown_is_left_out(declare):
    assert not declare(["assignee.password"]).related_fields
    assert declare(["assignee.password"], not_secret=["assignee.password"]).related_fields
    assert not declare(["assignee.username"], durable=False).related_fields
    fields = declare(["assignee.username", "attachments", "project.labels"]).related_fields
    assert list(fields) == ["assignee.username"]
    assert not declare(["user.apikey.prefix"], model="relations_app.Membership").related_fields


# values


def world():
    """Return a ticket of a project with labels, and what its related fields show."""
    organization = Organization.objects.create(name="Acme", slug="acme")
    project = Project.objects.create(name="p", organization=organization)
    # the order is that of the keys
    b, a = Label.objects.create(name="b"), Label.objects.create(name="a")
    project.labels.set([a, b])
    user = User.objects.create(username="ada")
    return Ticket.objects.create(project=project, organization=organization, assignee=user)


def test_values_are_read_with_a_query_for_all_paths_of_a_kind(declare, db):
    collection, ticket = declare(FIELDS), world()
    others = [Ticket.objects.create(title=str(number)) for number in range(50)]
    labels = [str(pk) for pk in Label.objects.order_by("pk").values_list("pk", flat=True)]
    with recorded_statements() as queries:
        values = make_related(collection, [str(row.pk) for row in (ticket, *others)])
    assert len([sql for sql in queries if sql.startswith("SELECT")]) == 2
    assert values[str(ticket.pk)] == {
        "assignee.username": "ada",
        "project.organization.name": "Acme",
        "project.labels": labels,
        "project.labels.name": ["b", "a"],
        "organization.name": "Acme",
    }
    empty = dict.fromkeys(FIELDS[1:]) | {"project.labels": [], "project.labels.name": []}
    assert values[str(others[0].pk)] == empty
    assert make_related(collection, ["0", "x"]) == {"0": empty, "x": empty}


def test_row_that_is_related_twice_is_listed_once(declare, db):
    collection = declare(["members", "members.username"], model="relations_app.Team")
    team, user = Team.objects.create(name="t"), User.objects.create(username="ada")
    team.members.add(user, through_defaults={"level": 1})
    team.teammember_set.create(user=user, level=2)
    (values,) = make_related(collection, [str(team.pk)]).values()
    assert values == {"members": [str(user.pk)], "members.username": ["ada"]}


def test_values_are_converted_as_those_of_the_row_itself(declare, db):
    collection = declare(
        ["project.slug", "project.team", "project.public", "team.id", "project.pk"]
    )
    team = Team.objects.create(name="t")
    slug = Organization.objects.create(name="o", slug="acme")
    project = Project.objects.create(name="p", team=team, slug=slug)
    ticket = Ticket.objects.create(project=project, team=team)
    (values,) = make_related(collection, [str(ticket.pk)]).values()
    assert values == {
        "project.slug": "acme",
        "project.team": str(team.pk),
        "project.public": False,
        "team.id": str(team.pk),
        "project.pk": str(project.pk),
    }


def test_file_is_shown_by_its_url(declare, db, settings):
    settings.MEDIA_URL = "/media/"
    ticket = Ticket.objects.create()
    own = Attachment.objects.create(file="a b.txt", ticket=ticket)
    none = Attachment.objects.create(ticket=ticket)
    attachments = declare(["file", "file.url"], model="relations_app.Attachment")
    assert attachments.dependencies == ()
    values = make_related(attachments, [str(own.pk), str(none.pk)])
    assert [value["file.url"] for value in values.values()] == ["/media/a%20b.txt", None]
    values = make_related(declare(["attachments.file.url"]), [str(ticket.pk)])
    assert values == {str(ticket.pk): {"attachments.file.url": ["/media/a%20b.txt", None]}}


def test_storage_that_raises_gives_null(declare, db, monkeypatch, caplog):
    storage = Attachment._meta.get_field("file").storage

    def fail(name):
        raise RuntimeError("no bucket")

    monkeypatch.setattr(storage, "url", fail)
    own = Attachment.objects.create(file="a.txt", ticket=Ticket.objects.create())
    collection = declare(["file.url"], model="relations_app.Attachment")
    with caplog.at_level(logging.ERROR):
        assert make_related(collection, [str(own.pk)]) == {str(own.pk): {"file.url": None}}
    assert "no bucket" in caplog.text


def test_managers_of_the_project_leave_nothing_out(declare, db, monkeypatch):
    collection, ticket = declare(["title", "project.labels.name"]), world()
    monkeypatch.setattr(
        type(Ticket._default_manager), "get_queryset", lambda manager: 1 / 0, raising=False
    )
    (values,) = make_related(collection, [str(ticket.pk)]).values()
    assert values == {"project.labels.name": ["b", "a"]}


def test_parent_rows_have_fields_too(declare, db):
    Restaurant.objects.create(name="Bistro", stars=2)
    tag = Tag.objects.create(name="x")
    post = Post.objects.create(title="t")
    post.tags.add(tag)
    (place,) = Place.objects.all()
    places = declare(["restaurant.stars"], model="app.Place")
    assert make_related(places, [str(place.pk)]) == {str(place.pk): {"restaurant.stars": 2}}
    posts = declare(["tags.name", "tags"], model="app.Post")
    assert make_related(posts, [str(post.pk)]) == {
        str(post.pk): {"tags": [str(tag.pk)], "tags.name": ["x"]}
    }

"""The columns that a query reads of each table, and its conditions on rows."""

import pytest
from django.db.models import Count, Exists, OuterRef, Q
from django.db.models.lookups import Exact

from django_cocobase_realtime.relations import KeyQuery, is_touched
from tests.relations_app.models import (
    COLLATION,
    Bug,
    Folded,
    Membership,
    Organization,
    Project,
    Ticket,
)

pytestmark = pytest.mark.django_db
MEMBERSHIP = {"id": 1, "user_id": 7, "organization_id": 1, "role": "member", "active": True}
PROJECT = {
    "id": 1,
    "name": "x",
    "public": False,
    "organization_id": 1,
    "slug_id": None,
    "parent_id": None,
    "team_id": None,
}


def touches(queryset, model, before, after):
    """Return whether the change of a row touches a query for the projects of tickets."""
    query = KeyQuery.resolve(Ticket, "project", queryset, "default")
    reads = query.table_reads(model._meta.label)
    return any(is_touched(of_alias, before, after) for of_alias in reads)


@pytest.fixture
def mine():
    return Project.objects.filter(organization__memberships__user=7)


def test_row_of_another_user_does_not_touch_a_query(mine):
    assert touches(mine, Membership, None, MEMBERSHIP)
    assert touches(mine, Membership, MEMBERSHIP, None)
    assert not touches(mine, Membership, None, MEMBERSHIP | {"user_id": 8})


def test_row_that_was_or_will_be_of_the_user_touches_a_query(mine):
    other = MEMBERSHIP | {"user_id": 8}
    assert touches(mine, Membership, other, MEMBERSHIP)
    assert touches(mine, Membership, MEMBERSHIP, other)


def test_column_that_is_not_read_does_not_touch_a_query(mine):
    assert not touches(mine, Membership, MEMBERSHIP, MEMBERSHIP | {"role": "admin"})
    assert not touches(mine, Project, PROJECT, PROJECT | {"name": "y"})
    assert touches(mine, Project, PROJECT, PROJECT | {"organization_id": 2})


def test_column_of_the_order_is_read_if_the_query_is_sliced(mine):
    renamed = PROJECT, PROJECT | {"name": "y"}
    assert not touches(mine.order_by("name"), Project, *renamed)
    assert touches(mine.order_by("name")[:2], Project, *renamed)


def test_column_of_a_related_order_is_read_if_the_query_is_sliced():
    row = {"id": 1, "name": "x", "slug": None, "flags": {}, "owner_id": None}
    ordered = Project.objects.order_by("organization__name")
    assert not touches(ordered, Organization, row, row | {"name": "y"})
    assert touches(ordered[:2], Organization, row, row | {"name": "y"})


def test_unknown_value_touches_a_query(mine):
    """A value that an image lacks, or has in a form that the field does not know."""
    unknown = {name: value for name, value in MEMBERSHIP.items() if name != "user_id"}
    assert touches(mine, Membership, None, unknown)
    assert touches(mine, Membership, None, unknown | {"user_id": "seven"})
    assert touches(mine, Membership, unknown, MEMBERSHIP | {"user_id": 8})
    assert touches(mine, Membership, None, unknown | {"user_id": "7"})


def test_condition_of_one_side_of_an_or_is_none():
    either = Project.objects.filter(Q(organization__owner=7) | Q(public=True))
    assert touches(either, Project, None, PROJECT)


def test_row_that_makes_a_negated_condition_false_touches_a_query():
    others = Project.objects.exclude(organization__memberships__user=7)
    assert touches(others, Membership, None, MEMBERSHIP)
    assert not touches(others, Membership, None, MEMBERSHIP | {"user_id": 8})
    assert touches(others, Project, None, PROJECT)


def test_row_touches_a_query_for_rows_without_relation():
    without_child = Project.objects.filter(Q(children__public=True) | Q(children=None))
    assert touches(without_child, Project, None, PROJECT | {"parent_id": 2})


def test_row_that_repeats_others_touches_a_query_if_it_is_sliced_or_counts():
    """A project whose name is x is returned once for each of its members."""
    either = Project.objects.filter(Q(members=7) | Q(name="x"))
    member = {"id": 1, "project_id": 1, "user_id": 8}
    members = Project.members.through
    assert not touches(either, members, None, member)
    assert touches(either.order_by("name")[:2], members, None, member)
    counted = either.annotate(n=Count("pk")).filter(n__gt=1)
    assert touches(counted, members, None, member)


def test_conditions_of_a_subquery_hold_for_its_rows(mine):
    members = Membership.objects.filter(user=7, organization=OuterRef("organization"))
    for query in (
        Project.objects.filter(Exists(members)),
        Project.objects.filter(~Exists(members)),
        Project.objects.filter(organization__in=Organization.objects.filter(memberships__user=7)),
        mine.union(Project.objects.filter(organization__owner=7)),
    ):
        assert touches(query.values("pk"), Membership, None, MEMBERSHIP)
        assert not touches(query.values("pk"), Membership, None, MEMBERSHIP | {"user_id": 8})


def test_text_of_another_collation_has_no_condition():
    """SQLite's collation ignores case: the row matches in the database, but not in Python."""
    folded = Folded.objects.filter(name="admin").values("project")
    row = {"id": 1, "name": "Admin", "project_id": 1}
    assert touches(folded, Folded, None, row)
    assert Folded._meta.get_field("name").db_collation == COLLATION


def test_parts_of_a_child_model_are_tables_of_their_own():
    bugs = Bug.objects.filter(severity=1, status="open").values("project")
    query = KeyQuery.resolve(Ticket, "project", bugs, "default")
    assert query.tables == {"relations_app.Bug", "relations_app.Ticket"}
    assert touches(bugs, Bug, None, {"ticket_ptr_id": 1, "severity": 1})
    assert not touches(bugs, Bug, None, {"ticket_ptr_id": 1, "severity": 2})
    ticket = {"id": 1, "status": "open", "project_id": 1}
    assert touches(bugs, Ticket, ticket, ticket | {"status": "done"})
    assert not touches(bugs, Ticket, ticket, ticket | {"title": "x"})


class OfProject(Exact):
    """A lookup of a project, whose SQL may use columns that its expressions do not name."""


def test_lookup_of_a_project_reads_every_column():
    column = Project._meta.pk.get_col("relations_app_project")
    query = Project.objects.filter(OfProject(column, 1))
    assert touches(query, Project, PROJECT, PROJECT | {"name": "y"})
    assert touches(query, Project, None, PROJECT | {"id": 2})

"""Which of many key queries a change touches, and what it takes to find them."""

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.db.models import Exists, OuterRef, Q
from django.test.utils import CaptureQueriesContext

from django_cocobase_realtime.relations import KeyQuery, KeyQueryIndex, RowChange, find_touched
from tests.relations_app.models import Membership, Organization, Project, Team, TeamMember, Ticket

User = get_user_model()
pytestmark = pytest.mark.django_db
USERS = 600
MEMBERS = 24


def image(row):
    """Return the image of a model instance."""
    fields = row._meta.local_concrete_fields
    return {field.attname: field.value_from_object(row) for field in fields}


def created(row):
    return RowChange(row._meta.label, row.pk, None, image(row))


def deleted(row):
    return RowChange(row._meta.label, row.pk, image(row), None)


class World:
    """Many users, 24 of whom are members of one organization, and all others of another."""

    def __init__(self):
        User.objects.bulk_create(User(username=str(n)) for n in range(USERS))
        self.users = list(User.objects.order_by("pk"))
        self.members = {user.pk for user in self.users[:MEMBERS]}
        self.small = Organization.objects.create(name="small", slug="small")
        self.large = Organization.objects.create(name="large", slug="large")
        Membership.objects.bulk_create(
            Membership(
                user=user, organization=self.small if user.pk in self.members else self.large
            )
            for user in self.users
        )

    def index(self, make):
        """Return an index of a query for each user."""
        index = KeyQueryIndex()
        self.of_user = {}
        for user in self.users:
            query = KeyQuery.resolve(Ticket, "project", make(user), "default")
            self.of_user[query] = user.pk
            index.add(query)
        return index

    def touched(self, index, *changes, statements=2):
        """Return the users of the queries that are touched, found in so many statements."""
        with CaptureQueriesContext(connection) as context:
            found = index.find_touched(changes)
        assert len(context) <= statements
        return {self.of_user[query] for query in found}


@pytest.fixture
def world():
    return World()


def by_join(user):
    return Project.objects.filter(organization__memberships__user=user)


def by_subquery(user):
    organizations = Organization.objects.filter(memberships__user=user)
    return Project.objects.filter(organization__in=organizations)


def by_exists(user):
    mine = Membership.objects.filter(user=user, organization=OuterRef("organization"))
    return Project.objects.filter(Exists(mine))


def by_union(user):
    return by_join(user).union(Project.objects.filter(members=user))


def by_either(user):
    return Project.objects.filter(Q(organization__memberships__user=user) | Q(members=user))


def by_either_queryset(user):
    organizations = Organization.objects.filter(memberships__user=user)
    return Project.objects.filter(Q(organization__in=organizations) | Q(members=user))


@pytest.mark.parametrize(
    "make", [by_join, by_subquery, by_exists, by_union, by_either, by_either_queryset]
)
def test_new_project_touches_the_queries_of_its_members_alone(world, make):
    index = world.index(make)
    project = Project.objects.create(name="new", organization=world.small)
    assert world.touched(index, created(project)) == world.members


def test_several_new_projects_are_searched_in_one_statement(world):
    index = world.index(by_join)
    projects = [Project.objects.create(name="new", organization=world.small) for _ in range(9)]
    changes = map(created, projects)
    assert world.touched(index, *changes, statements=1) == world.members


def test_project_without_organization_touches_no_query(world):
    index = world.index(by_join)
    project = Project.objects.create(name="new")
    assert world.touched(index, created(project), statements=0) == set()


def test_deleted_project_touches_the_queries_of_its_members(world):
    project = Project.objects.create(name="old", organization=world.small)
    index = world.index(by_join)
    change = deleted(project)
    project.delete()
    assert world.touched(index, change) == world.members


def test_moved_project_touches_the_queries_of_both_organizations(world):
    index = world.index(by_join)
    project = Project.objects.create(name="x", organization=world.small)
    before = image(project)
    project.organization = world.large
    project.save()
    moved = RowChange(project._meta.label, project.pk, before, image(project))
    assert world.touched(index, moved) == {user.pk for user in world.users}


def test_renamed_project_touches_no_query(world):
    index = world.index(by_join)
    project = Project.objects.create(name="x", organization=world.small)
    renamed = image(project) | {"name": "y"}
    change = RowChange(project._meta.label, project.pk, image(project), renamed)
    assert world.touched(index, change, statements=0) == set()


def test_membership_touches_the_query_of_its_user_without_a_statement(world):
    index = world.index(by_join)
    membership = Membership.objects.get(user=world.users[3])
    change = deleted(membership)
    membership.delete()
    assert world.touched(index, change, statements=0) == {world.users[3].pk}


def test_rows_deleted_in_two_transactions_are_both_found(world):
    """The first change is noticed after the second, and the rows between are gone by then."""

    def by_team(user):
        return Project.objects.filter(team__members=user)

    team = Team.objects.create(name="x")
    members = [TeamMember.objects.create(team=team, user=user) for user in world.users[:20]]
    project = Project.objects.create(name="x", team=team)
    index = world.index(by_team)
    first = [deleted(project)]
    second = [deleted(team), *map(deleted, members)]
    project.delete()
    team.delete()
    found = world.touched(index, *first) | world.touched(index, *second)
    assert found == {member.user_id for member in members}


def test_cascade_is_found_in_one_transaction(world):
    index = world.index(by_join)
    project = Project.objects.create(name="old", organization=world.small)
    memberships = list(world.small.memberships.all())
    changes = [deleted(project), deleted(world.small), *map(deleted, memberships)]
    world.small.delete()
    assert world.touched(index, *changes) == world.members


def test_public_project_touches_every_query(world):
    def public_or_mine(user):
        return Project.objects.filter(Q(public=True) | Q(organization__memberships__user=user))

    index = world.index(public_or_mine)
    public = Project.objects.create(name="x", public=True, organization=world.small)
    private = Project.objects.create(name="x", organization=world.small)
    assert world.touched(index, created(public)) == {user.pk for user in world.users}
    assert world.touched(index, created(private)) == world.members


def test_project_touches_every_query_that_excludes_organizations(world):
    def not_mine(user):
        return Project.objects.exclude(organization__memberships__user=user)

    index = world.index(not_mine)
    project = Project.objects.create(name="x", organization=world.small)
    assert world.touched(index, created(project)) == {user.pk for user in world.users}


def test_unknown_value_touches_every_query(world):
    index = world.index(by_join)
    project = Project.objects.create(name="x", organization=world.small)
    partial = RowChange(project._meta.label, project.pk, None, {"id": project.pk})
    assert len(world.touched(index, partial)) == USERS
    odd = image(project) | {"organization_id": "small"}
    assert len(world.touched(index, RowChange(project._meta.label, 1, None, odd))) == USERS


def test_two_conditions_on_a_row_must_hold_together(world):
    def administered(user):
        return Project.objects.filter(
            organization__memberships__user=user, organization__memberships__role="admin"
        )

    index = world.index(administered)
    membership = Membership.objects.get(user=world.users[3])
    assert world.touched(index, created(membership), statements=0) == set()
    Membership.objects.filter(pk=membership.pk).update(role="admin")
    membership.refresh_from_db()
    assert world.touched(index, created(membership), statements=0) == {world.users[3].pk}
    project = Project.objects.create(name="x", organization=world.small)
    assert world.touched(index, created(project)) == {world.users[3].pk}


def test_discarded_query_is_not_found(world):
    index = world.index(by_join)
    queries = list(world.of_user)
    for query in queries[1:]:
        index.discard(query)
        index.discard(query)
    assert len(index) == 1
    assert queries[0] in index
    assert queries[1] not in index
    project = Project.objects.create(name="x", organization=world.small)
    assert index.find_touched([created(project)]) == {queries[0]}
    index.discard(queries[0])
    assert len(index) == 0
    assert index.find_touched([created(project)]) == set()


def test_query_is_found_without_an_index():
    user = User.objects.create(username="ada")
    organization = Organization.objects.create(name="x")
    query = KeyQuery.resolve(Ticket, "project", by_join(user), "default")
    membership = Membership.objects.create(user=user, organization=organization)
    assert find_touched([query], [created(membership)]) == {query}
    assert find_touched([query], [RowChange("auth.User", 1, None, {})]) == set()

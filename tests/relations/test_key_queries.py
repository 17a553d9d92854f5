"""Key queries: what they are compared with, what they return, and which are refused."""

from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.db.models import F, Func, Q, Value
from django.db.models.expressions import RawSQL
from django.db.models.functions import Chr, Now, Random
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_cocobase_realtime.relations import KeyQuery, UnsupportedQuery, key_queries, read_many
from tests.app.models import Post, Seat
from tests.relations.history import USERS, History
from tests.relations.kinds import KINDS, queryset
from tests.relations_app.models import (
    Folded,
    Membership,
    Organization,
    Project,
    Team,
    TeamMember,
    Ticket,
    Unmanaged,
)

User = get_user_model()
pytestmark = pytest.mark.django_db


def resolve(queryset, field="project", using="default", model=Ticket):
    return KeyQuery.resolve(model, field, queryset, using)


def projects_of(user, **conditions):
    return Project.objects.filter(organization__memberships__user=user, **conditions)


@pytest.fixture
def ada():
    """A user with two memberships of one organization, which has three projects."""
    user = User.objects.create(username="ada")
    organization = Organization.objects.create(name="x", slug="x")
    for _ in range(2):
        Membership.objects.create(user=user, organization=organization)
    for _ in range(3):
        Project.objects.create(name="x", organization=organization)
    return user


def test_tickets_with_a_key_are_those_that_the_orm_finds():
    """The keys of a query are those for which its row is found by ``filter(field__in=...)``."""
    history = History(3)
    for row in (*Project.objects.all(), *[None]):
        Ticket.objects.create(project=row, organization=Organization.objects.first())
    for _ in range(30):
        history.write()
    for name, (field, _) in KINDS.items():
        for user in USERS:
            compared = queryset(name, user)
            keys = resolve(compared, field).read_keys(1000)
            attname = Ticket._meta.pk.attname if field == "pk" else f"{field}_id"
            tickets = dict(Ticket.objects.values_list("pk", attname))
            expected = Ticket.objects.filter(**{f"{field}__in": queryset(name, user)})
            assert {pk for pk, key in tickets.items() if key in keys} == set(
                expected.values_list("pk", flat=True)
            ), name
            assert None not in keys
            assert len(keys) == len(set(keys))


def test_equal_querysets_are_one_query():
    assert resolve(projects_of(1)) == resolve(projects_of(User(pk=1)))
    assert len({resolve(projects_of(1)), resolve(projects_of(1)), resolve(projects_of(2))}) == 2


def test_queries_that_differ_in_parameters_have_one_shape():
    assert resolve(projects_of(1)).shape is resolve(projects_of(2)).shape
    assert resolve(projects_of(1)).shape is not resolve(projects_of(1, public=True)).shape


def test_numbers_and_truth_values_are_different_parameters():
    one, true = (Project.objects.annotate(n=Value(v)).filter(n=F("pk")) for v in (1, 1.0))
    assert resolve(one) != resolve(true)


def test_conditions_that_no_row_meets_do_not_change_the_others():
    """Both querysets have the same statement, but its user is not the same condition."""
    never = Q(pk__in=[])
    one = resolve(projects_of(1) | projects_of(2).filter(never))
    other = resolve(projects_of(2).filter(never) | projects_of(1))
    assert one.shape.sql == other.shape.sql
    assert one.table_reads("relations_app.Membership") != ()
    for query in (one, other):
        values = {
            value
            for reads in query.table_reads("relations_app.Membership")
            for conditions in reads.conditions or ()
            for condition in conditions
            for value in condition.values
        }
        assert 1 in values


def test_queries_at_different_moments_are_different():
    first, second = (
        resolve(User.objects.filter(date_joined__gt=moment), "assignee")
        for moment in (timezone.now(), timezone.now() + timedelta(seconds=1))
    )
    assert first != second
    assert first.shape is second.shape


def test_query_names_the_tables_that_it_reads():
    assert resolve(projects_of(1)).tables == {
        "relations_app.Project",
        "relations_app.Organization",
        "relations_app.Membership",
    }
    assert resolve(Project.objects.filter(members=1)).tables == {
        "relations_app.Project",
        "relations_app.Project_members",
    }
    assert resolve(Project.objects.none()).tables == set()


def test_keys_are_read_up_to_one_more_than_the_limit(ada):
    query = resolve(projects_of(ada))
    assert len(query.read_keys(2)) == 3
    assert len(query.read_keys(1)) == 2
    others = [resolve(projects_of(user)) for user in (ada.pk + 1, ada.pk + 2)]
    assert [len(keys) for keys in read_many([query, *others], 1)] == [2, 0, 0]


def test_keys_have_the_type_of_the_field(ada):
    team = Team.objects.create(name="x")
    TeamMember.objects.create(team=team, user=ada)
    teams = Team.objects.filter(members=ada)
    assert resolve(teams, "team").read_keys(10) == [team.pk]
    slugs = Organization.objects.filter(memberships__user=ada)
    assert resolve(slugs, "organization").read_keys(10) == ["x"]


def test_many_queries_are_read_as_each_alone():
    history = History(4)
    for _ in range(20):
        history.write()
    queries = [
        resolve(queryset(name, user), field)
        for name, (field, _) in KINDS.items()
        for user in (*USERS, 99)
    ]
    for query, keys in zip(queries, read_many(queries, 1000), strict=True):
        assert sorted(keys, key=str) == sorted(query.read_keys(1000), key=str), query


@pytest.mark.skipif(connection.vendor != "postgresql", reason="one by one on other databases")
def test_many_queries_are_read_in_one_statement(ada, monkeypatch):
    queries = [resolve(projects_of(user)) for user in range(ada.pk, ada.pk + 50)]
    read_many(queries, 10)
    with CaptureQueriesContext(connection) as statements:
        keys = read_many(queries, 10)
    assert len([s for s in statements if "unnest" in s["sql"]]) == 1
    assert len(statements) <= 3  # with a savepoint
    assert [len(part) for part in keys] == [3] + [0] * 49
    monkeypatch.setattr(key_queries, "MAX_BATCH_KEYS", 2)
    assert [sorted(part) for part in read_many(queries, 10)] == [sorted(part) for part in keys]
    assert len(read_many(queries, 1)[0]) == 2


@pytest.mark.skipif(connection.vendor != "postgresql", reason="one by one on other databases")
def test_queries_that_no_statement_can_read_together_are_read_one_by_one(ada):
    """In the statement the parameter is a bigint, for which PostgreSQL has no chr()."""
    queries = [
        resolve(projects_of(ada).filter(name=Chr(Value(code)))) for code in (ord("x"), ord("y"))
    ]
    assert [len(keys) for keys in read_many(queries, 10)] == [3, 0]
    assert [len(keys) for keys in read_many(queries, 10)] == [3, 0]


REFUSED = {
    "extra": (lambda: Project.objects.extra(where=["1 = 1"]), "replace"),
    "extra select": (lambda: Project.objects.extra(select={"n": "1"}), "replace"),
    "SQL": (lambda: Project.objects.filter(pk__in=RawSQL("SELECT 1", ())), "RawSQL"),
    "raw()": (lambda: Project.objects.raw("SELECT 1 AS id"), "QuerySet"),
    "a list": (lambda: [1, 2], "QuerySet"),
    "the database's time": (
        lambda: User.objects.filter(date_joined__lt=Now()).values("projects"),
        "timezone.now()",
    ),
    "random numbers": (lambda: Project.objects.filter(pk__gt=Random()), "Random"),
    "random order": (lambda: Project.objects.order_by("?")[:2], "Random"),
    "a function of random numbers": (
        lambda: Project.objects.filter(pk__gt=Func(function="random")),
        "Func",
    ),
    "locks": (lambda: Project.objects.select_for_update(), "select_for_update()"),
    "another database": (lambda: Project.objects.using("other"), "other"),
    "an unmanaged table": (
        lambda: Project.objects.filter(
            organization__memberships__user__in=Unmanaged.objects.values("user")
        ),
        "relations_unmanaged",
    ),
    "another model": (lambda: Organization.objects.all(), "Organization"),
    "two columns": (lambda: Project.objects.values("pk", "name"), "2"),
    "another type": (lambda: Project.objects.values("name"), 'values("pk")'),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_query_is_refused_with_the_change_to_make(name):
    make, message = REFUSED[name]
    with pytest.raises(UnsupportedQuery) as error:
        resolve(make())
    assert message in str(error.value)


def test_text_with_a_collation_of_its_own_is_refused():
    with pytest.raises(UnsupportedQuery, match="collation"):
        KeyQuery.resolve(Project, "name", Folded.objects.values("name"), "default")


def test_key_of_several_columns_is_refused():
    with pytest.raises(UnsupportedQuery, match="one column"):
        KeyQuery.resolve(Seat, "pk", Seat.objects.all(), "default")


def test_field_that_is_no_relation_has_keys_too(ada):
    authors = KeyQuery.resolve(Post, "views", Project.objects.values("pk"), "default")
    assert len(authors.read_keys(10)) == 3

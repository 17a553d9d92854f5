"""Querysets of all kinds for the tests of dependencies, each for one user."""

from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.db.models import (
    Case,
    Count,
    Exists,
    F,
    FilteredRelation,
    Max,
    Min,
    OuterRef,
    Q,
    Subquery,
    Value,
    When,
    Window,
)
from django.db.models.functions import Coalesce, Concat, Lower, RowNumber

from tests.relations_app.models import (
    Bug,
    Folded,
    Label,
    Membership,
    Note,
    Organization,
    Project,
    ProxyMembership,
    Team,
    TeamMember,
    Ticket,
)

User = get_user_model()
P, O, M, T, L = Project.objects, Organization.objects, Membership.objects, Ticket, Label.objects  # noqa: E741
ProjectMember = Project.members.through
# field of Ticket that the keys are compared with
PROJECT, ORGANIZATION, TEAM, ASSIGNEE, PK = "project", "organization", "team", "assignee", "pk"


def membership(user, **conditions):
    return M.filter(user=user, **conditions)


# name: (field of Ticket, function that returns the queryset for a user)
KINDS = {
    "join": (PROJECT, lambda u: P.filter(organization__memberships__user=u)),
    "join by object": (
        PROJECT,
        lambda u: P.filter(organization__memberships__user=User(pk=u)),
    ),
    "join with two conditions on one row": (
        PROJECT,
        lambda u: P.filter(
            organization__memberships__user=u, organization__memberships__role="admin"
        ),
    ),
    "two joins of one relation": (
        PROJECT,
        lambda u: P.filter(organization__memberships__user=u).filter(
            organization__memberships__role="admin"
        ),
    ),
    "join and own column": (
        PROJECT,
        lambda u: P.filter(organization__memberships__user=u, public=True),
    ),
    "in with queryset": (
        PROJECT,
        lambda u: P.filter(organization__in=O.filter(memberships__user=u)),
    ),
    "in with values": (
        PROJECT,
        lambda u: P.filter(organization__in=membership(u).values("organization")),
    ),
    "in with three levels": (
        PROJECT,
        lambda u: P.filter(
            organization__in=O.filter(memberships__in=membership(u, active=True)), public=False
        ),
    ),
    "not in": (
        PROJECT,
        lambda u: P.exclude(organization__in=O.filter(memberships__user=u)),
    ),
    "values of a foreign key": (
        PROJECT,
        lambda u: ProjectMember.objects.filter(user=u).values("project"),
    ),
    "values of a path": (PROJECT, lambda u: membership(u).values("organization__projects")),
    "values of a slug": (ORGANIZATION, lambda u: O.filter(memberships__user=u).values("slug")),
    "foreign key to a slug": (ORGANIZATION, lambda u: O.filter(memberships__user=u)),
    "slug by a path": (ORGANIZATION, lambda u: membership(u).values("organization__slug")),
    "slug in two steps": (PROJECT, lambda u: P.filter(slug__memberships__user=u)),
    "uuid": (TEAM, lambda u: Team.objects.filter(members=u)),
    "uuid of a through model": (
        TEAM,
        lambda u: TeamMember.objects.filter(user=u, level__gte=1).values("team"),
    ),
    "uuid in two steps": (PROJECT, lambda u: P.filter(team__members=u)),
    "through model with condition": (
        PROJECT,
        lambda u: P.filter(team__teammember__user=u, team__teammember__level=1),
    ),
    "users": (ASSIGNEE, lambda u: User.objects.filter(memberships__organization__owner=u)),
    "primary keys": (PK, lambda u: T.objects.filter(project__members=u)),
    "many to many": (PROJECT, lambda u: P.filter(members=u)),
    "many to many in list": (PROJECT, lambda u: P.filter(members__in=[u, 3])),
    "many to many to names": (PROJECT, lambda u: P.filter(members=u, labels__name="red")),
    "many to many to self": (
        PROJECT,
        lambda u: P.filter(members=u, labels__parents__name="red"),
    ),
    "null": (PROJECT, lambda u: P.filter(organization__isnull=True, members=u)),
    "no row": (PROJECT, lambda u: P.filter(children__isnull=True, members=u)),
    "no row, for all": (PROJECT, lambda u: P.filter(children__isnull=True)),
    "exclude many": (PROJECT, lambda u: P.exclude(organization__memberships__user=u)),
    "exclude own": (PROJECT, lambda u: P.exclude(organization__owner=u)),
    "not": (PROJECT, lambda u: P.filter(~Q(members=u))),
    "not and": (
        PROJECT,
        lambda u: P.filter(~Q(organization__owner=u, public=True), organization__isnull=False),
    ),
    "not or": (PROJECT, lambda u: P.filter(~(Q(organization__owner=u) | Q(public=True)))),
    "or of paths": (
        PROJECT,
        lambda u: P.filter(Q(organization__memberships__user=u) | Q(members=u)),
    ),
    "or with own column": (PROJECT, lambda u: P.filter(Q(public=True) | Q(members=u))),
    "or with owner": (PROJECT, lambda u: P.filter(Q(organization__owner=u) | Q(name="x"))),
    "or of one path": (PROJECT, lambda u: P.filter(Q(members=u) | Q(members=3))),
    "or with null": (PROJECT, lambda u: P.filter(Q(members=u) | Q(members__isnull=True))),
    "or with empty": (PROJECT, lambda u: P.filter(Q(pk__in=[]) | Q(members=u))),
    "or of querysets": (
        PROJECT,
        lambda u: P.filter(Q(organization__in=O.filter(memberships__user=u)) | Q(members=u)),
    ),
    "or of and": (
        PROJECT,
        lambda u: P.filter(
            Q(organization__memberships__user=u, organization__memberships__role="admin")
            | Q(members=u, public=True)
        ),
    ),
    "and of or": (
        PROJECT,
        lambda u: P.filter(Q(members=u) | Q(name="x"), organization__memberships__user=u),
    ),
    "xor": (PROJECT, lambda u: P.filter(Q(members=u) ^ Q(name="x"))),
    "exists": (
        PROJECT,
        lambda u: P.filter(Exists(membership(u).filter(organization=OuterRef("organization")))),
    ),
    "not exists": (
        PROJECT,
        lambda u: P.filter(
            ~Exists(membership(u, active=False).filter(organization=OuterRef("organization")))
        ),
    ),
    "exists in exists": (
        ORGANIZATION,
        lambda u: O.filter(
            Exists(
                P.filter(
                    Exists(ProjectMember.objects.filter(project=OuterRef("pk"), user=u)),
                    organization=OuterRef("pk"),
                )
            )
        ),
    ),
    "exists over two queries": (
        ORGANIZATION,
        lambda u: O.filter(
            Exists(
                P.filter(
                    Exists(M.filter(organization=OuterRef(OuterRef("pk")), user=u)),
                    organization=OuterRef("pk"),
                )
            )
        ),
    ),
    "exists as annotation": (
        PROJECT,
        lambda u: P.annotate(
            mine=Exists(membership(u).filter(organization=OuterRef("organization")))
        ).filter(mine=True),
    ),
    "columns compared": (
        PROJECT,
        lambda u: P.filter(organization__owner=F("organization__memberships__user"), members=u),
    ),
    "count": (PROJECT, lambda u: P.annotate(n=Count("members")).filter(n__gt=1)),
    "count after filter": (
        PROJECT,
        lambda u: P.filter(members=u).annotate(n=Count("labels")).filter(n__gt=0),
    ),
    "count with filter": (
        ORGANIZATION,
        lambda u: O.annotate(n=Count("memberships", filter=Q(memberships__user=u))).filter(
            n__gte=1
        ),
    ),
    "having maximum": (
        ORGANIZATION,
        lambda u: (
            M.values("organization")
            .annotate(last=Max("user"))
            .filter(last=u)
            .values("organization__slug")
        ),
    ),
    "minimum of a group": (
        PROJECT,
        lambda u: (
            ProjectMember.objects.filter(user__lte=u)
            .values("user")
            .annotate(first=Min("project"))
            .values("first")
        ),
    ),
    "subquery as annotation": (
        ORGANIZATION,
        lambda u: O.annotate(
            role=Subquery(
                membership(u).filter(organization=OuterRef("pk")).order_by("pk").values("role")[:1]
            )
        ).filter(role="admin"),
    ),
    "coalesce": (
        PROJECT,
        lambda u: P.annotate(w=Coalesce("parent__organization", "organization")).filter(
            w__in=O.filter(owner=u)
        ),
    ),
    "filtered relation": (
        ORGANIZATION,
        lambda u: O.annotate(
            mine=FilteredRelation("memberships", condition=Q(memberships__user=u))
        ).filter(mine__role="admin"),
    ),
    "filtered relation without row": (
        ORGANIZATION,
        lambda u: O.annotate(
            mine=FilteredRelation("memberships", condition=Q(memberships__user=u))
        ).filter(mine__isnull=True),
    ),
    "slice": (PROJECT, lambda u: P.filter(members=u).order_by("name", "pk")[:2]),
    "slice from": (PROJECT, lambda u: P.filter(members=u).order_by("name", "pk")[1:3]),
    "slice by related": (
        PROJECT,
        lambda u: P.filter(members=u).order_by("organization__name", "pk")[:2],
    ),
    "slice by nullable": (PROJECT, lambda u: P.order_by("parent__name", "pk")[:2]),
    "slice by count": (
        PROJECT,
        lambda u: P.filter(members=u).annotate(n=Count("labels")).order_by("-n", "pk")[:1],
    ),
    "in with slice": (
        PROJECT,
        lambda u: P.filter(
            organization__in=O.filter(memberships__user=u).order_by("name", "pk")[:1]
        ),
    ),
    "in with slice of all": (
        PROJECT,
        lambda u: P.filter(organization__in=O.order_by("name", "pk")[:2], members=u),
    ),
    "slice of or": (
        PROJECT,
        lambda u: P.filter(Q(members=u) | Q(name="x")).order_by("name", "pk")[:3],
    ),
    "count of or": (
        PROJECT,
        lambda u: P.filter(Q(members=u) | Q(name="x")).annotate(n=Count("pk")).filter(n__gt=1),
    ),
    "distinct": (PROJECT, lambda u: P.filter(members__in=[3, u]).distinct()),
    "distinct by related": (
        PROJECT,
        lambda u: P.filter(members=u).order_by("organization__name").distinct(),
    ),
    "union": (
        PROJECT,
        lambda u: (
            P.filter(members=u)
            .values("pk")
            .union(P.filter(organization__memberships__user=u).values("pk"))
        ),
    ),
    "union of models": (
        PROJECT,
        lambda u: (
            P.filter(members=u).values("pk").union(membership(u).values("organization__projects"))
        ),
    ),
    "intersection": (
        PROJECT,
        lambda u: (
            P.filter(members=u)
            .values("pk")
            .intersection(P.filter(organization__memberships__user=u).values("pk"))
        ),
    ),
    "difference": (
        PROJECT,
        lambda u: (
            P.filter(members=u)
            .values("pk")
            .difference(P.filter(organization__memberships__user=u).values("pk"))
        ),
    ),
    "in with union": (
        PROJECT,
        lambda u: P.filter(
            organization__in=membership(u)
            .values("organization")
            .union(O.filter(owner=u).values("pk"))
        ),
    ),
    "querysets joined by or": (
        PROJECT,
        lambda u: P.filter(members=u) | P.filter(members=1),
    ),
    "querysets joined by and": (
        PROJECT,
        lambda u: P.filter(members=u) & P.filter(public=True),
    ),
    "proxy": (
        PROJECT,
        lambda u: P.filter(
            organization__in=ProxyMembership.objects.filter(user=u).values("organization")
        ),
    ),
    "child model": (
        PROJECT,
        lambda u: Bug.objects.filter(severity=1, assignee=u).values("project"),
    ),
    "columns of child and parent": (
        PROJECT,
        lambda u: Bug.objects.filter(assignee=u, severity__gt=0).values("project"),
    ),
    "join to a child model": (PROJECT, lambda u: P.filter(ticket__bug__severity=1, members=u)),
    "primary keys of a child": (PK, lambda u: Bug.objects.filter(project__members=u)),
    "generic relation": (PROJECT, lambda u: P.filter(notes__author=u)),
    "generic key": (
        PROJECT,
        lambda u: Note.objects.filter(
            author=u, content_type=ContentType.objects.get_for_model(Project)
        ).values("object_id"),
    ),
    "case folded": (
        PROJECT,
        lambda u: P.filter(members=u, organization__name__iexact="X"),
    ),
    "text found": (PROJECT, lambda u: P.filter(members=u, organization__name__contains="x")),
    "function": (
        PROJECT,
        lambda u: P.filter(members=u).annotate(l=Lower("organization__name")).filter(l="x"),
    ),
    "concatenation": (
        PROJECT,
        lambda u: P.annotate(t=Concat("name", Value("-"), "organization__name")).filter(
            t="x-x", members=u
        ),
    ),
    "parent": (PROJECT, lambda u: P.filter(parent__members=u)),
    "parent or own": (PROJECT, lambda u: P.filter(Q(parent__members=u) | Q(members=u))),
    "parent and own": (PROJECT, lambda u: P.filter(parent__members=u, members=3)),
    "grandparent": (PROJECT, lambda u: P.filter(parent__parent__organization__owner=u)),
    "case": (
        PROJECT,
        lambda u: P.annotate(c=Case(When(organization__owner=u, then=1), default=0)).filter(c=1),
    ),
    "json key": (PROJECT, lambda u: P.filter(members=u, organization__flags__open=True)),
    "json key of the user": (ORGANIZATION, lambda u: O.filter(flags__admin=u)),
    "collation": (PROJECT, lambda u: Folded.objects.filter(name="x").values("project")),
    "range": (PROJECT, lambda u: P.filter(organization__memberships__user__gte=u)),
    "window": (
        PROJECT,
        lambda u: (
            P.filter(members=u)
            .annotate(n=Window(RowNumber(), partition_by="organization", order_by="pk"))
            .filter(n=1)
        ),
    ),
    "path without table": (PROJECT, lambda u: P.filter(organization__in=[9, u])),
    "none": (PROJECT, lambda u: P.none()),
    "dates": (PROJECT, lambda u: P.filter(members__is_active=True, members=u)),
    "owner through user": (PROJECT, lambda u: P.filter(organization__owner__username=f"user{u}")),
    "many conditions on users": (
        PROJECT,
        lambda u: P.filter(
            organization__memberships__user=u,
            organization__memberships__active=True,
            organization__owner__is_active=True,
            team__members=u,
        ),
    ),
}
# kinds for which nearly no query may be found in vain
PLAIN = [
    "join", "join with two conditions on one row", "in with queryset", "in with values",
    "values of a foreign key", "foreign key to a slug", "uuid", "uuid in two steps", "many to many",
    "exists", "or of paths", "union", "proxy", "generic relation", "parent",
]  # fmt: skip


def queryset(name, user):
    """Return the queryset of a kind for a user."""
    return KINDS[name][1](user)

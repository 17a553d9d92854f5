"""Permissions over relations: the tickets of organizations of which a user is a member."""

from django.db.models import Exists, OuterRef, Q

from django_cocobase_realtime.permissions import Permission
from tests.relations_app.models import Membership, Project

TABLES = tuple(f"relations_app.{name}" for name in ("Project", "Organization", "Membership"))


def projects_of(identity):
    """Return the projects of the active memberships of a user."""
    return Project.objects.filter(
        organization__memberships__user=identity.user_id, organization__memberships__active=True
    )


class MemberTickets(Permission):
    """The tickets of the projects of a user's organizations."""

    def visible_to(self, identity):
        return {"project__in": projects_of(identity)}


class MemberOrAssignee(Permission):
    """The same, and the tickets that the user is assigned to."""

    def visible_to(self, identity):
        return {
            "$or": [{"project__in": projects_of(identity)}, {"assignee": identity.user_id}],
        }


class NotInHiddenProjects(Permission):
    """All tickets but those of projects whose organization the user is an inactive member of."""

    def visible_to(self, identity):
        hidden = Membership.objects.filter(
            user=identity.user_id, active=False, organization=OuterRef("organization")
        )
        return {"$not": {"project__in": Project.objects.filter(Exists(hidden))}}


class Assigned(Permission):
    """The tickets that the user is assigned to."""

    def visible_to(self, identity):
        return {"assignee": identity.user_id}


class CheckedMember(MemberTickets):
    """The tickets of the user's organizations that have a row permission's consent."""

    def has_object_permission(self, identity, ticket):
        return ticket.assignee_id != identity.user_id


NotMember = ~MemberTickets
MemberAndAssigned = MemberTickets & Assigned
AssignedOrHidden = Assigned | ~NotInHiddenProjects
NotChecked = ~CheckedMember
CheckedOrAssigned = CheckedMember | Assigned

# the condition of the ORM for each permission
CONDITIONS = {
    "MemberTickets": lambda user: Q(
        pk__in=_tickets(
            project__organization__memberships__user=user,
            project__organization__memberships__active=True,
        )
    ),
    "MemberOrAssignee": lambda user: CONDITIONS["MemberTickets"](user) | Q(assignee=user),
    "NotInHiddenProjects": lambda user: (
        ~Q(
            pk__in=_tickets(
                project__organization__memberships__user=user,
                project__organization__memberships__active=False,
            )
        )
    ),
}
# the same for permissions that are combined, or have row permissions
COMBINED = {
    "NotMember": lambda user: ~CONDITIONS["MemberTickets"](user),
    "MemberAndAssigned": lambda user: CONDITIONS["MemberTickets"](user) & Q(assignee=user),
    "AssignedOrHidden": lambda user: ~CONDITIONS["NotInHiddenProjects"](user) | Q(assignee=user),
    "CheckedMember": lambda user: CONDITIONS["MemberTickets"](user) & _assigned_to_others(user),
    "NotChecked": lambda user: ~COMBINED["CheckedMember"](user),
    "CheckedOrAssigned": lambda user: COMBINED["CheckedMember"](user) | Q(assignee=user),
}


def _assigned_to_others(user):
    return Q(assignee=None) | ~Q(assignee=user)


def _tickets(**conditions):
    from tests.relations_app.models import Ticket

    return Ticket.objects.filter(**conditions).values("pk")


def declare(settings, permission="MemberTickets", capture="signals", **options):
    """Declare the collection "tickets" with a permission of this module."""
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "tickets": {
                "model": "relations_app.Ticket",
                "fields": ["title", "project"],
                "permission": f"tests.support.tickets.{permission}",
                "depends_on": TABLES,
                "capture": capture,
                **options,
            }
        },
    }

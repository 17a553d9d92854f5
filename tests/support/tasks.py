"""Collections of tasks: one that shows all, and two whose permission reads the user's projects."""

from typing import Any

from django_cocobase_realtime.permissions import Permission
from tests.relations_app.models import Project
from tests.support.live_oracle import FIELDS

TABLES = ("relations_app.Project", "relations_app.Project_members")


def projects_of(identity: Any) -> Any:
    """Return the projects of which a user is a member."""
    return Project.objects.filter(members=identity.user_id)


class MineOrOwned(Permission):
    """The tasks of the user's projects, and those that the user owns."""

    def visible_to(self, identity: Any) -> Any:
        return {"$or": [{"project__in": projects_of(identity)}, {"owner": identity.user_id}]}


class OfOthers(Permission):
    """All tasks but those of the user's projects."""

    def visible_to(self, identity: Any) -> Any:
        return {"$not": {"project__in": projects_of(identity)}}


def options(capture: str, **limits: Any) -> dict[str, Any]:
    """Return settings with the collections "tasks", "mine" and "others"."""
    task = {
        "model": "app.Task",
        "fields": FIELDS,
        "filters": FIELDS,
        "soft_delete": "deleted",
        "capture": capture,
    }
    restricted = {**task, "depends_on": TABLES}
    many = (10_000, 10_000)
    return {
        "COLLECTIONS": {
            "tasks": task,
            "mine": {**restricted, "permission": "tests.support.tasks.MineOrOwned"},
            "others": {**restricted, "permission": "tests.support.tasks.OfOthers"},
        },
        "LIMITS": {
            "subscribe_rate": many,
            "messages_rate": many,
            "filter_cost": 10_000,
            "connections_per_user": 1000,
            "connections_per_address": 1000,
            "unauthenticated_per_address": 1000,
            **limits,
        },
    }

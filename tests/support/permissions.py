"""Permissions that tests name by their paths in settings."""

import time
from datetime import timedelta

from django.db import DataError
from django.db.models import F
from django.utils import timezone

from django_cocobase_realtime import permissions_changed
from django_cocobase_realtime.permissions import (
    DjangoModelPermissions,
    IsAdminUser,
    IsAuthenticated,
    Permission,
    owned_by,
)

OwnPosts = owned_by("owner")


class Published(Permission):
    def visible_to(self, identity):
        return {"status": "published"}


class TitlesOnly(Permission):
    def fields_for(self, identity):
        return ["title"]


class TeamPosts(Permission):
    """The user sees the rows whose project has the name of one of the user's groups."""

    def visible_to(self, identity):
        if identity.user is None:
            return None
        return {"project": {"in": list(identity.user.groups.values_list("name", flat=True))}}


class RowQuery(Permission):
    """Query the database for each row."""

    checked = []

    def has_object_permission(self, identity, post):
        self.checked.append(post.pk)
        if post.title == "broken":
            raise RuntimeError("no")
        return type(post).objects.filter(pk=post.pk, views=F("views")).exists() or post.views < 10


class SmallForApps(Permission):
    def visible_to(self, identity):
        return {"size": {"lt": 5}} if identity.user is None else True


class ChangesWhileChecked(Permission):
    """Announce changed permissions during the check itself, ``times`` times."""

    times = 0

    def can_subscribe(self, identity, filters):
        if ChangesWhileChecked.times:
            ChangesWhileChecked.times -= 1
            permissions_changed(identity.user)
            time.sleep(0.2)
        return True


class FewViews(Permission):
    def has_object_permission(self, identity, post):
        return post.views < 10


class CreatedRecently(Permission):
    """Compare with the current time, and with what `permissions_changed` announces."""

    status = "draft"
    precision = {"microsecond": 0}

    def visible_to(self, identity):
        now = timezone.now()
        return {
            "status": self.status,
            "created_at": {"gte": (now - timedelta(days=1)).replace(**self.precision), "lte": now},
            "$not": {
                "$or": [
                    {"created_at": {"lt": str(now - timedelta(days=30))}},
                    {"meta.until": {"in": [now.isoformat(), now.timestamp()]}},
                ]
            },
        }


class ReadsEverything(Permission):
    """Look at every field of the row."""

    def has_object_permission(self, identity, instance):
        return all(
            str(getattr(instance, field.attname)) is not None
            for field in instance._meta.concrete_fields
        )


class RefusedByDatabase(Permission):
    """Run a query that the database refuses for rows with the title "bad"."""

    def has_object_permission(self, identity, post):
        if post.title == "bad":
            raise DataError("integer out of range")
        return True


class SlowOwn(Permission):
    """Show the own rows. Each check takes 2 ms, and is recorded by the row's title."""

    SECONDS = 0.002
    checked = []

    def has_object_permission(self, identity, post):
        self.checked.append(post.title)
        time.sleep(self.SECONDS)
        return post.owner_id == identity.user_id


OwnOrPublished = OwnPosts | Published
AdminOrOwn = IsAdminUser | (IsAuthenticated & OwnPosts)
NotMine = ~OwnPosts
PublishedFew = Published & FewViews
NotFew = ~FewViews
Models = DjangoModelPermissions
OwnAllOrTitles = OwnPosts | (Published & TitlesOnly)

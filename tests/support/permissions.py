"""Permissions that the tests of this folder name by their paths."""

import time

from django.db.models import F

from django_cocobase_realtime import permissions_changed
from django_cocobase_realtime.permissions import (
    DjangoModelPermissions,
    IsAdminUser,
    IsUser,
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


class Team(Permission):
    """Rows of a project that is named like one of the user's groups."""

    def visible_to(self, identity):
        if identity.user is None:
            return None
        return {"project": {"in": identity.user.groups.values_list("name", flat=True)}}


class ByObject(Permission):
    """Slow: asks the database about each row."""

    asked = []

    def has_object_permission(self, identity, post):
        self.asked.append(post.pk)
        if post.title == "broken":
            raise RuntimeError("no")
        return type(post).objects.filter(pk=post.pk, views=F("views")).exists() or post.views < 10


class SmallForApps(Permission):
    def visible_to(self, identity):
        return {"size": {"lt": 5}} if identity.user is None else True


class Meddling(Permission):
    """Rights change while they are asked for."""

    times = 0

    def can_subscribe(self, identity, filters):
        if Meddling.times:
            Meddling.times -= 1
            permissions_changed(identity.user)
            time.sleep(0.2)
        return True


class FewViews(Permission):
    def has_object_permission(self, identity, post):
        return post.views < 10


OwnOrPublished = OwnPosts | Published
AdminOrOwn = IsAdminUser | (IsUser & OwnPosts)
NotMine = ~OwnPosts
PublishedFew = Published & FewViews
NotFew = ~FewViews
Models = DjangoModelPermissions
OwnAllOrTitles = OwnPosts | (Published & TitlesOnly)

"""Permissions whose decisions are explained, named by their paths in settings."""

from django_cocobase_realtime.permissions import IsAdminUser, Permission, owned_by
from tests.relations_app.models import Project

Own = owned_by("owner")


class Refused(Permission):
    def can_subscribe(self, identity, filters):
        return False


class OnlyOfOneAuthor(Permission):
    """Require a filter by the author."""

    def can_subscribe(self, identity, filters):
        return filters.only("author_id") is not None


class Raises(Permission):
    def visible_to(self, identity):
        raise ValueError("the message is not shown")


class RaisesForRow(Permission):
    def has_object_permission(self, identity, post):
        raise ValueError("the message is not shown")


class RaisesForRowOrOwn(Permission):
    def has_object_permission(self, identity, post):
        if post.title == "broken":
            raise ValueError("the message is not shown")
        return True


class Wrong(Permission):
    def visible_to(self, identity):
        return {"titel": "x"}


class NoBoolean(Permission):
    def visible_to(self, identity):
        return "yes"


class Nothing(Permission):
    def visible_to(self, identity):
        return False


class Unknown(Permission):
    def visible_to(self, identity):
        return None


class Small(Permission):
    def visible_to(self, identity):
        return {"views": {"lt": 5}}


class Published(Permission):
    def visible_to(self, identity):
        return {"status": "published"}


class PublishedOrOwn(Permission):
    def visible_to(self, identity):
        return {"$or": [{"status": "published"}, {"owner": identity.user_id}]}


class NotDrafts(Permission):
    def visible_to(self, identity):
        return {"$not": {"status": "draft"}}


class NotOwn(Permission):
    def visible_to(self, identity):
        return {"$not": {"owner": identity.user_id}}


class TitlesOnly(Permission):
    def fields_for(self, identity):
        return ["title"]


class FewViews(Permission):
    def has_object_permission(self, identity, post):
        return post.views < 10


class OwnProjects(Permission):
    def visible_to(self, identity):
        return {"project__in": Project.objects.filter(members=identity.user_id)}


class Extra(Permission):
    def visible_to(self, identity):
        return {"project__in": Project.objects.extra(where=["1 = 1"])}


class ByDiagnosis(Permission):
    def visible_to(self, identity):
        return {"diagnosis": "measles"}


class ByPassword(Permission):
    def visible_to(self, identity):
        return {"password": "hunter2"}


class BySecretInJson(Permission):
    def visible_to(self, identity):
        return {"meta.token": "abc-asked"}


OwnOrPublished = Own | Published
AdminAndOwn = IsAdminUser & Own
NotPublished = ~Published
NotFew = ~FewViews
PublishedFew = Published & FewViews
SmallRaisingRow = Small & RaisesForRow

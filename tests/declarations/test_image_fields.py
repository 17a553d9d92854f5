"""Images hold the fields that an option names, and what permissions look at; nothing else."""

import re

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_cocobase_realtime.declarations.collection import Collection
from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.identity import Identity
from django_cocobase_realtime.models import LogEvent
from django_cocobase_realtime.permissions import IsAuthenticated, Permission, owned_by
from django_cocobase_realtime.utils.project_code import ProjectCodeFailed
from tests.app.models import Post
from tests.support.log import read_all

NEVER_NAMED = {"body", "rating"}


class RowCheck(Permission):
    def has_object_permission(self, identity, post):
        return True


class OnlyFields(Permission):
    def fields_for(self, identity):
        return ["title"]


def image_names(**options):
    collection = registry.from_settings("posts", {"model": "app.Post", **options})
    return set(collection.codec.fields)


ALL = image_names()


def test_all_fields_are_held_without_options():
    assert {field.name for field in Post._meta.concrete_fields} == ALL


def test_only_named_fields_are_held():
    names = image_names(
        fields=["title"],
        filters=["meta.tags", "status"],
        project_field="project",
        soft_delete={"$or": [{"views": {"lt": 0}}, {"owner": None}]},
    )
    times = {"created_at", "updated_at"}
    assert names == {"id", "title", "meta", "status", "project", "views", *times}


def test_declared_times_and_flag_of_soft_delete_are_held():
    names = image_names(
        fields=["title"], soft_delete="body", created_field="updated_at", exclude=["created_at"]
    )
    assert names == {"id", "title", "body", "updated_at"}


@pytest.mark.parametrize(
    "permission",
    [
        RowCheck,
        owned_by("owner"),
        IsAuthenticated & RowCheck,
        ~(IsAuthenticated | owned_by("owner")),
    ],
)
def test_permission_that_looks_at_rows_needs_all_fields(permission):
    assert image_names(fields=["title"], permission=permission) == ALL
    assert image_names(fields=["title"], permission=permission, exclude=["body"]) == ALL - {"body"}
    named = image_names(fields=["title"], permission=permission, permission_fields=["owner"])
    assert named == {"id", "title", "owner", "created_at", "updated_at"}


@pytest.mark.parametrize(
    "permission", [None, IsAuthenticated, OnlyFields, IsAuthenticated & OnlyFields]
)
def test_permission_that_looks_at_no_row_needs_no_further_field(permission):
    assert not image_names(fields=["title"], permission=permission) & NEVER_NAMED


def test_methods_of_the_collection_need_all_fields():
    class Posts(Collection):
        model = Post
        fields = ("title",)

        def visible_to(self, identity):
            return True

    assert set(registry.from_class("posts", Posts).codec.fields) == ALL


def test_serializer_needs_all_fields():
    assert image_names(fields=["title"], serializer=lambda post: {"title": post.title}) == ALL


def test_excluded_field_is_neither_readable_nor_filterable():
    collection = registry.from_settings("posts", {"model": "app.Post", "exclude": ["body"]})
    assert "body" not in collection.readable
    assert "body" not in collection.filterable
    assert "body" not in collection.schema


def test_secret_looking_field_is_held_only_if_declared_as_not_secret():
    options = {"model": "app.Author", "permission_fields": ["password"]}
    assert "password" not in registry.from_settings("authors", options).codec.fields
    options["not_secret"] = ["password"]
    assert "password" in registry.from_settings("authors", options).codec.fields


@pytest.mark.django_db(transaction=True)
def test_field_that_no_option_names_is_not_logged(settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": {"model": "app.Post", "fields": ["title", "status"]}}
    }
    Post.objects.create(title="a", body="diagnosis")
    Post.objects.update(body="another diagnosis", status="done")
    assert [set(event.after) & NEVER_NAMED for event in read_all()] == [set(), set()]
    assert not LogEvent.objects.filter(after__contains="diagnosis").exists()


def test_filter_of_visible_to_that_names_another_field_is_refused_with_the_line_to_add():
    options = {
        "model": "app.Post",
        "fields": ["title"],
        "permission": owned_by("owner"),
        "permission_fields": ["status"],
    }
    collection = registry.from_settings("posts", options)
    identity = Identity(credential="test", user_id="1", name="Ada")
    line = r"permission_fields = \['status', 'owner'\]"
    with pytest.raises(ProjectCodeFailed) as failed:
        collection.grant(identity, {})
    assert isinstance(failed.value.__cause__, ImproperlyConfigured)
    assert re.search(line, str(failed.value.__cause__))
    options["permission_fields"] = ["status", "owner"]
    assert registry.from_settings("posts", options).grant(identity, {}) is not None

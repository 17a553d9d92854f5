"""The options ``orders``, ``order_fields`` and ``aggregates``: defaults and rights."""

import pytest
from rest_framework import serializers

from django_cocobase_realtime.declarations.collection import Collection
from django_cocobase_realtime.declarations.registry import register, registry
from django_cocobase_realtime.identity import Identity
from django_cocobase_realtime.permissions import Permission
from tests.app.models import Everything, Post

ADA = Identity("jwt:default:1", user_id=1, name="ada")


class OnlyTitleAndViews(Permission):
    def fields_for(self, identity):
        return ["title", "views"]


class PostSerializer(serializers.ModelSerializer):
    class Meta:
        model = Post
        fields = ("title", "views", "status")


def collection(model="app.Post", **options):
    return registry.from_settings("posts", {"model": model, **options})


def allowed(**options):
    """Return the names that an identity may sort by, and those that it may aggregate."""
    grant = collection(**options).grant(ADA, {})
    return set(grant.order_fields), set(grant.aggregates)


@pytest.mark.parametrize(
    ("options", "order_fields", "aggregates"),
    [
        ({"fields": ["title", "views", "rating", "meta"]}, {"title", "views", "rating"}, None),
        ({"fields": ["views"], "filters": ["owner", "meta.tags"]}, {"views", "owner"}, {"views"}),
        ({"fields": ["views"], "order_fields": ["created_at"]}, {"created_at"}, {"views"}),
        ({"fields": ["views"], "order_fields": [], "aggregates": []}, set(), set()),
        ({"fields": ["title"], "aggregates": ["rating", "created_at"]}, {"title"}, None),
        ({"fields": ["title", "author.name"]}, {"title"}, set()),
        ({"serializer": PostSerializer}, {"title", "views", "status"}, {"views"}),
        ({"serializer": PostSerializer, "filters": ["rating"]}, {"rating"}, {"views"}),
        ({"serializer": dict, "filters": ["rating"]}, {"rating"}, set()),
        (
            {"fields": ["title", "views", "rating"], "permission": OnlyTitleAndViews},
            {"title", "views"},
            {"views"},
        ),
        (
            {
                "fields": ["title"],
                "order_fields": ["title", "rating"],
                "aggregates": ["views", "rating"],
                "permission": OnlyTitleAndViews,
            },
            {"title"},
            {"views"},
        ),
    ],
)
def test_fields_that_clients_may_sort_by_and_aggregate(options, order_fields, aggregates):
    if aggregates is None:
        aggregates = {"views", "rating"} if "views" in options["fields"] else {"rating"}
        aggregates |= set(options.get("aggregates", ()))
    assert allowed(**options) == (order_fields, aggregates)


def test_defaults_of_a_collection_without_options():
    order_fields, aggregates = allowed()
    fields = {field.name for field in Post._meta.concrete_fields}
    assert order_fields == fields - {"meta"}
    assert aggregates == {"views", "rating"}
    everything = collection("app.Everything")
    assert everything.summable == {
        *("big", "decimal", "float", "integer", "positive", "small", "double")
    }
    assert not everything.sortable & {"binary", "json", "duration"}
    authors = collection("app.Author")
    assert authors.sortable == {"id", "name"}  # not the password


def test_options_of_a_class():
    @register("live_posts")
    class LivePosts(Collection):
        model = Everything
        fields = ("text",)
        order_fields = ("moment",)
        aggregates = ("big",)
        orders = ("-moment",)

    try:
        assert registry.get("live_posts").sortable == {"moment"}
        assert registry.get("live_posts").summable == {"big"}
        # images hold what windows are sorted by, and what is added up
        assert {"text", "moment", "big"} <= set(registry.get("live_posts").codec.fields)
    finally:
        registry.unregister("live_posts")

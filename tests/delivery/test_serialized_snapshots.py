"""Snapshots of a collection with a serializer: rows are loaded and serialized together."""

import json

import pytest
from django.db.models import Count
from rest_framework import serializers

from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.delivery.query import AuthorizedQuery
from django_cocobase_realtime.delivery.snapshot import DocumentReader, SelectedKeys, select_keys
from django_cocobase_realtime.delivery.subscription import Subscription, SubscriptionRequest
from django_cocobase_realtime.filters import Filter, parse
from django_cocobase_realtime.filters.order import BY_KEY
from tests.app.models import Author, Comment, Post, Tag
from tests.support.queries import recorded_statements

pytestmark = pytest.mark.django_db(transaction=True)
HERE = __name__
DOCUMENTS = 1000


class TagSerializer(serializers.ModelSerializer):
    class Meta:
        model = Tag
        fields = ("name",)


class PostSerializer(serializers.ModelSerializer):
    author = serializers.CharField(source="author.name")
    tags = TagSerializer(many=True)
    comments = serializers.SerializerMethodField()

    class Meta:
        model = Post
        fields = ("title", "author", "tags", "comments")

    def get_comments(self, post):
        known = getattr(post, "comment_count", None)
        return post.comment_set.count() if known is None else known


def serialize_post(post):
    return dict(PostSerializer(post).data)


class PlainPosts:
    """A serializer of the project, which makes many documents in one call."""

    calls = 0

    def __new__(cls, post):
        (document,) = cls.serialize_many([post])
        return document

    @classmethod
    def serialize_many(cls, posts):
        cls.calls += 1
        return [serialize_post(post) for post in posts]


def with_related(posts):
    return (
        posts.select_related("author")
        .prefetch_related("tags")
        .annotate(comment_count=Count("comment"))
    )


def unlike_the_rows(posts):
    """A wrong queryset, which hides a row, repeats others, and adds those that it was not given."""
    return Post.objects.filter(tags__isnull=False).exclude(title="1") | Post.objects.none()


@pytest.fixture
def posts():
    authors = [Author.objects.create(name=f"author {n}") for n in range(3)]
    tags = [Tag.objects.create(name=f"tag {n}") for n in range(2)]
    rows = [Post(title=str(n), author=authors[n % 3]) for n in range(DOCUMENTS)]
    rows = Post.objects.bulk_create(rows)
    through = Post.tags.through
    through.objects.bulk_create(through(post=row, tag=tag) for row in rows for tag in tags)
    Comment.objects.bulk_create(Comment(post=row, text="x") for row in rows[::2])
    return rows


def read_all(settings, filter=None, fields=None, **options):
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": {"model": "app.Post"} | options}}
    collection = registry.get("posts")
    query = AuthorizedQuery(filter or Filter.everything(), fields)
    subscription = Subscription(None, SubscriptionRequest("posts", "posts"), query)
    with recorded_statements() as statements:
        selected, _ = select_keys(collection, subscription, BY_KEY, DOCUMENTS)
        reader = DocumentReader(collection, subscription, selected)
        documents = []
        while reader.has_more:
            documents += reader.read(262_144)
    return [json.loads(document) for document in documents], statements


SERIALIZERS = [f"{HERE}.{name}" for name in ("PostSerializer", "PlainPosts", "serialize_post")]


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_queries_for_1000_documents(settings, posts, serializer):
    expected, statements = read_all(settings, serializer=serializer)
    assert len(statements) > 3 * DOCUMENTS
    documents, statements = read_all(
        settings, serializer=serializer, queryset=f"{HERE}.with_related"
    )
    assert len(documents) == DOCUMENTS
    assert documents == expected
    # the keys, the rows, and their tags
    assert len(statements) == 3
    assert documents[2]["data"] == {
        "title": "2",
        "author": "author 2",
        "tags": [{"name": "tag 0"}, {"name": "tag 1"}],
        "comments": 1,
    }


class AuthorSerializer(serializers.ModelSerializer):
    posts = serializers.SerializerMethodField()

    class Meta:
        model = Author
        fields = ("name", "posts")

    def get_posts(self, author):
        return [post.title for post in author.post_set.all()]


def with_posts(authors):
    return authors.prefetch_related("post_set")


def test_three_queries_for_1000_small_rows(settings):
    authors = Author.objects.bulk_create(Author(name=str(n)) for n in range(DOCUMENTS))
    Post.objects.bulk_create(Post(title=author.name, author=author) for author in authors)
    documents, statements = read_all(
        settings, model="app.Author", serializer=AuthorSerializer, queryset=with_posts
    )
    expected = [{"name": str(n), "posts": [str(n)]} for n in range(DOCUMENTS)]
    assert [document["data"] for document in documents] == expected
    assert len(statements) == 3


def test_rows_are_serialized_in_few_calls(settings, posts):
    PlainPosts.calls = 0
    read_all(settings, serializer=f"{HERE}.PlainPosts", queryset=with_related)
    assert 0 < PlainPosts.calls <= 8


@pytest.mark.parametrize("queryset", ["unlike_the_rows", "raise_error", "return_values"])
def test_queryset_neither_adds_nor_removes_rows(settings, posts, queryset, caplog):
    filter = parse({"views": 0, "title_in": ["1", "2", "3"]}, registry.get("posts").schema)
    documents, _ = read_all(
        settings, filter, serializer=f"{HERE}.PostSerializer", queryset=f"{HERE}.{queryset}"
    )
    assert [document["data"]["title"] for document in documents] == ["1", "2", "3"]
    assert "queryset" in caplog.text


def raise_error(posts):
    raise RuntimeError("It cannot be loaded.")


def return_values(posts):
    return posts.values("pk", "title")


def with_other_values(posts):
    """Defer what the filter needs, and add a value with a similar name."""
    return posts.only("title").annotate(views_=Count("tags"))


def test_queryset_does_not_decide_what_is_visible(settings, posts):
    Post.objects.filter(title__in=["1", "2"]).update(views=7)
    collection = registry.get("posts")
    filter = parse({"views": 0}, collection.schema)
    documents, _ = read_all(
        settings, filter, serializer=f"{HERE}.title_of", queryset=f"{HERE}.hide_a_row_meanwhile"
    )
    titles = {document["data"]["title"] for document in documents}
    assert titles.isdisjoint({"1", "2", "changed"})


def title_of(post):
    return {"title": post.title}


def hide_a_row_meanwhile(posts):
    """Change a row after its key was selected, and before it is loaded."""
    Post.objects.filter(title="4").update(views=1, title="changed")
    return with_other_values(posts)


class FailingForOne(PostSerializer):
    def to_representation(self, instance):
        if instance.title == "3":
            raise RuntimeError("It cannot be made.")
        return super().to_representation(instance)


class WrongMany(PlainPosts):
    @classmethod
    def serialize_many(cls, posts):
        return [] if len(posts) > 1 else super().serialize_many(posts)


class Backwards(serializers.ListSerializer):
    def to_representation(self, data):
        return super().to_representation(data)[::-1]


class BackwardsSerializer(PostSerializer):
    class Meta(PostSerializer.Meta):
        list_serializer_class = Backwards


def test_row_whose_serializer_fails_does_not_affect_the_others(settings, posts, caplog):
    documents, _ = read_all(settings, serializer=f"{HERE}.FailingForOne", queryset=with_related)
    titles = [document.get("data", {}).get("title") for document in documents]
    assert titles == [str(n) if n != 3 else None for n in range(DOCUMENTS)]
    assert documents[3] == {"id": str(posts[3].pk), "error": True}
    (record,) = [r for r in caplog.records if r.name.endswith("project_code")]
    assert "FailingForOne" in record.getMessage()


@pytest.mark.parametrize("serializer", ["WrongMany", "BackwardsSerializer"])
def test_lists_in_another_order_are_not_used(settings, posts, serializer, caplog):
    documents, _ = read_all(settings, serializer=f"{HERE}.{serializer}", queryset=with_related)
    assert [document["data"]["title"] for document in documents] == [p.title for p in posts]
    if serializer == "WrongMany":
        assert "one mapping per instance" in caplog.text


def test_encrypted_field_is_compared_as_the_database_holds_it(settings):
    from tests.app.models import Patient

    patients = [Patient.objects.create(name=str(n), diagnosis=f"d{n}") for n in range(3)]
    options = {"model": "app.Patient", "serializer": f"{HERE}.diagnosis_of"}
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"patients": {**options, "queryset": lambda rows: rows.order_by("name")}}
    }
    collection = registry.get("patients")
    filter = parse({"diagnosis_ne": "d1"}, collection.schema, trusted=True)
    subscription = Subscription(
        None, SubscriptionRequest("p", "patients"), AuthorizedQuery(filter, None)
    )
    keys = [patient.pk for patient in patients]
    reader = DocumentReader(collection, subscription, SelectedKeys(keys))
    documents = [json.loads(text)["data"] for text in reader.read(10_000)]
    assert documents == [{"diagnosis": "d0"}, {"diagnosis": "d2"}]


def diagnosis_of(patient):
    return {"diagnosis": patient.diagnosis}

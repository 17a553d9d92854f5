"""The option ``queryset``: what it adds to the rows that the serializer of a collection gets."""

import pytest
from django.core.checks import run_checks
from django.db.models import Count

from django_cocobase_realtime import Collection, register
from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.declarations.row_documents import make_documents
from django_cocobase_realtime.events import Change
from tests.app.models import Author, Comment, Post
from tests.support.queries import recorded_statements

pytestmark = pytest.mark.django_db(transaction=True)
HERE = __name__


def serialize(post):
    author = None if post.author is None else post.author.name
    comments = getattr(post, "comment_count", None)
    return {"title": post.title, "author": author, "comments": comments, "secret": post.body}


def with_author(posts):
    return posts.select_related("author").annotate(comment_count=Count("comment"))


def use(settings, **options):
    entry = {"model": "app.Post", "serializer": serialize, "queryset": with_author, **options}
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": entry}}
    return registry.get("posts")


def change_of(collection, post, op="updated", **image):
    row = Post.objects.values(*collection.codec.attnames).get(pk=post.pk)
    image = collection.codec.image(row) | image
    images = {"before": image} if op == "deleted" else {"after": image}
    return Change("", "posts", op, str(post.pk), "", "", **images)


def test_document_has_values_of_the_change_and_related_rows_of_now(settings):
    collection = use(settings)
    ada, bob = Author.objects.create(name="Ada"), Author.objects.create(name="Bob")
    post = Post.objects.create(title="new", author=ada)
    Comment.objects.create(post=post, text="x")
    gone = Post.objects.create(title="gone")
    changes = [
        change_of(collection, post, title="old", author=str(bob.pk)),
        change_of(collection, post),
        change_of(collection, gone, "deleted"),
    ]
    gone.delete()
    with recorded_statements() as statements:
        documents = make_documents(collection, changes, "default")
    expected = [("old", "Bob", 1), ("new", "Ada", 1), ("gone", None, None)]
    assert [(d["title"], d["author"], d["comments"]) for d in documents] == expected
    # the rows, and the author that the row does not refer to any more
    assert len(statements.of("app_post")) == 1
    assert len(statements.of("app_author")) == 1


def test_many_changes_cost_one_query(settings):
    collection = use(settings)
    author = Author.objects.create(name="Ada")
    posts = [Post.objects.create(title=str(n), author=author) for n in range(150)]
    changes = [change_of(collection, post) for post in posts]
    with recorded_statements() as statements:
        documents = make_documents(collection, changes, "default")
    assert [document["title"] for document in documents] == [post.title for post in posts]
    assert {document["author"] for document in documents} == {"Ada"}
    assert len(statements) == 1


@pytest.mark.parametrize("durable", [True, False])
async def test_events_have_what_the_queryset_adds(realtime, api_key, settings, durable):
    use(settings, durable=durable)
    author = await Author.objects.acreate(name="Ada")
    async with realtime(token=api_key) as app:
        await app.subscribe("posts")
        post = await Post.objects.acreate(title="x", author=author)
        document = (await app.receive("event"))["document"]["data"]
        assert document == {"title": "x", "author": "Ada", "comments": 0, "secret": ""}
        await post.adelete()
        event = await app.receive("event")
        assert (event["event"], event["document"]["data"]["comments"]) == ("deleted", None)


async def test_events_of_a_failing_queryset_are_sent(realtime, api_key, settings, caplog):
    use(settings, queryset=lambda posts: posts.annotate(nonsense=Count("no_such_relation")))
    async with realtime(token=api_key) as app:
        await app.subscribe("posts")
        await Post.objects.acreate(title="x")
        document = (await app.receive("event"))["document"]["data"]
        assert (document["title"], document["comments"]) == ("x", None)
    assert "queryset of collection 'posts' failed" in caplog.text


async def test_query_that_the_database_refuses_does_not_stop_the_log(realtime, api_key, settings):
    """On PostgreSQL it aborts the transaction, here that which numbers events."""
    use(settings, queryset=lambda posts: posts.extra(select={"n": "no_such_column"}))
    async with realtime(token=api_key) as app:
        await app.subscribe("posts")
        await Post.objects.acreate(title="x")
        assert (await app.receive("event"))["document"]["data"]["title"] == "x"


@pytest.fixture
def registered():
    @register("drafts")
    class Drafts(Collection):
        model = Post
        serializer = staticmethod(serialize)

        def queryset(self, queryset):
            assert self.name == "drafts"
            return with_author(queryset)

    yield registry.get("drafts")
    registry.unregister("drafts")


def test_method_of_a_class(registered):
    post = Post.objects.create(title="x")
    (document,) = make_documents(registered, [change_of(registered, post)], "default")
    assert document["comments"] == 0


@pytest.mark.parametrize("value", ["tests.nowhere.function", 5])
def test_queryset_that_cannot_be_called_is_reported(settings, value):
    use(settings, queryset=value)
    assert "cocobase_realtime.E008" in {message.id for message in run_checks()}


def test_queryset_without_serializer_is_not_used(settings):
    assert use(settings, serializer=None).loaded_queryset is None

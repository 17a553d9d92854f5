"""Capture of the ORM's operations: which changes are logged, and in which order."""

import asyncio
import threading

import pytest
from asgiref.sync import sync_to_async
from django.core import serializers
from django.db import connection, transaction
from django.db.models import Case, F, Value, When
from django.db.models.signals import post_delete, post_save, pre_save

from django_cocobase_realtime.events import Change
from django_cocobase_realtime.testing import capture_events
from tests.app.models import (
    Author,
    Comment,
    Diner,
    Everything,
    Place,
    Post,
    PublishedPost,
    Restaurant,
    UuidThing,
)

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


@pytest.fixture
def events():
    with capture_events() as captured:
        yield captured


def changes(events):
    """Return (collection, op, id) of each change."""
    return [(e.collection, e.op, e.document_id) for e in events if isinstance(e, Change)]


def last(events):
    return [e for e in events if isinstance(e, Change)][-1]


def test_create_update_and_delete_are_logged(events):
    post = Post.objects.create(title="a")
    post.title = "b"
    post.save()
    id = str(post.pk)
    post.delete()
    assert changes(events) == [
        ("posts", "created", id),
        ("posts", "updated", id),
        ("posts", "deleted", id),
    ]
    created, updated, deleted = events
    assert created.before is None
    assert created.after["title"] == "a"
    assert (updated.before["title"], updated.after["title"]) == ("a", "b")
    assert set(updated.changed) == {"title", "updated_at"}
    assert deleted.before["title"] == "b"
    assert deleted.after is None
    assert len({e.transaction for e in events}) == 3
    assert len({e.id for e in events}) == 3


def test_save_without_changes_is_logged_as_update(events):
    author = Author.objects.create(name="A")
    author.save()
    assert last(events).op == "updated"
    assert last(events).changed == ()


def test_changed_fields_are_those_of_the_row_when_instance_is_stale(events):
    post = Post.objects.create(title="a", views=1)
    stale = Post.objects.get(pk=post.pk)
    Post.objects.filter(pk=post.pk).update(views=50)  # not captured
    stale.title = "b"
    stale.save()
    assert last(events).before["views"] == 50
    assert {"title", "views"} <= set(last(events).changed)


def test_save_with_update_fields_logs_written_fields_only(events):
    post = Post.objects.create(title="a", views=1)
    post.title, post.views = "unsaved", 2
    post.save(update_fields=["views"])
    assert last(events).changed == ("views",)
    assert last(events).after["title"] == "a"
    assert last(events).after["views"] == 2


def test_save_with_deferred_fields_logs_whole_row(events):
    post = Post.objects.create(title="a", body="long")
    partial = Post.objects.only("views").get(pk=post.pk)
    partial.views = 9
    partial.save()
    assert last(events).changed == ("views",)
    assert last(events).after["body"] == "long"


@pytest.mark.parametrize(
    "expression",
    [F("views") + 1, Case(When(title="a", then=Value(11)), default=Value(0)), Value(11)],
)
def test_expression_is_logged_with_its_value(events, expression):
    post = Post.objects.create(title="a", views=10)
    post.views = expression
    post.save()
    assert last(events).after["views"] == 11


def test_generated_field_is_logged_with_its_value(events):
    thing = Everything.objects.create(integer=4)
    assert last(events).after["double"] == 8
    thing.integer = 5
    thing.save()
    assert last(events).after["double"] == 10
    assert set(last(events).changed) == {"integer", "double"}


def test_save_with_given_primary_key_is_create_or_update(events):
    thing = UuidThing.objects.create(name="a")
    UuidThing(pk=thing.pk, name="b").save(force_update=True)
    assert last(events).op == "updated"
    assert last(events).before["name"] == "a"
    author = Author.objects.create(name="a")
    Author(pk=author.pk, name="b").save()
    assert (last(events).op, last(events).before["name"]) == ("updated", "a")
    Author(pk=author.pk + 100, name="c").save()
    assert last(events).op == "created"


def test_save_of_deleted_row_is_logged_as_created(events):
    post = Post.objects.create(title="a")
    Post.objects.filter(pk=post.pk).delete()
    post.save()
    assert [op for _, op, _ in changes(events)] == ["created", "deleted", "created"]


def test_delete_of_deleted_row_logs_nothing(events):
    post = Post.objects.create(title="a")
    twin = Post.objects.get(pk=post.pk)
    post.delete()
    twin.delete()
    assert [op for _, op, _ in changes(events)] == ["created", "deleted"]


def test_queryset_delete_logs_rows_and_cascades(events):
    posts = [Post.objects.create(title=str(n)) for n in range(3)]
    comment = Comment.objects.create(post=posts[0], text="x")
    comment_id, ids = str(comment.pk), [str(post.pk) for post in posts]
    Post.objects.all().delete()
    deleted = [(c, id) for c, op, id in changes(events) if op == "deleted"]
    assert deleted[0] == ("comments", comment_id)
    assert sorted(deleted[1:]) == sorted(("posts", id) for id in ids)
    assert len({e.transaction for e in events if e.op == "deleted"}) == 1


def test_foreign_key_set_to_null_is_logged_as_update(events):
    author = Author.objects.create(name="A")
    post = Post.objects.create(title="x", author=author)
    key = str(author.pk)
    author.delete()
    assert ("posts", "updated", str(post.pk)) in changes(events)
    (update,) = [e for e in events if e.op == "updated"]
    assert update.changed == ("author",)
    assert update.before["author"] == key
    assert update.after["author"] is None


def test_proxy_model_logs_to_collection_of_its_model(events):
    proxy = PublishedPost.objects.create(title="p")
    proxy.title = "q"
    proxy.save()
    proxy.delete()
    assert [op for _, op, _ in changes(events)] == ["created", "updated", "deleted"]
    assert {c for c, _, _ in changes(events)} == {"posts"}


def test_multi_table_row_is_logged_for_each_of_its_models(events):
    diner = Diner.objects.create(name="D", stars=1)
    all_tables = {"places", "restaurants", "diners"}
    assert {c for c, op, _ in changes(events) if op == "created"} == all_tables
    events.clear()
    Place.objects.get().save()
    assert {c for c, op, _ in changes(events) if op == "updated"} == all_tables
    events.clear()
    restaurant = Restaurant.objects.get()
    restaurant.stars = 3
    restaurant.save()
    assert {e.collection: e.changed for e in events} == {
        "places": (),
        "restaurants": ("stars",),
        "diners": ("stars",),
    }
    events.clear()
    diner.delete(keep_parents=True)
    assert changes(events) == [("diners", "deleted", str(restaurant.pk))]
    events.clear()
    Place.objects.get().delete()
    assert [c for c, _, _ in changes(events)] == ["restaurants", "places"]


def test_deserialized_objects_are_logged(events):
    text = serializers.serialize("json", [Author(pk=5, name="A")])
    for deserialized in serializers.deserialize("json", text):
        deserialized.save()
    assert changes(events) == [("authors", "created", "5")]
    assert last(events).after == {"id": "5", "name": "A"}


def test_rolled_back_changes_are_not_logged(events):
    with pytest.raises(KeyError), transaction.atomic():
        Post.objects.create(title="never")
        raise KeyError
    assert events == []


def test_changes_of_rolled_back_savepoints_are_not_logged(events):
    with transaction.atomic():
        Post.objects.create(title="1")
        with pytest.raises(KeyError), transaction.atomic():
            Post.objects.create(title="never")
            with transaction.atomic():
                Post.objects.create(title="never either")
            raise KeyError
        with transaction.atomic():
            Post.objects.create(title="2")
        assert events == []
    assert [e.after["title"] for e in events] == ["1", "2"]
    assert len({e.transaction for e in events}) == 1


@pytest.fixture
def refusing_receiver():
    def refuse(**kwargs):
        raise ValueError("no")

    post_save.connect(refuse, sender=Author)
    yield
    post_save.disconnect(refuse, sender=Author)


def test_row_whose_receiver_raises_is_logged_if_it_stays(events, refusing_receiver):
    with pytest.raises(ValueError, match="no"):
        Author.objects.create(name="A")
    assert Author.objects.count() == 1  # Django commits the row before the receivers run
    assert [(e.op, e.after["name"]) for e in events] == [("created", "A")]


def test_row_whose_receiver_raises_is_not_logged_if_it_is_rolled_back(events, refusing_receiver):
    with pytest.raises(ValueError, match="no"), transaction.atomic():
        Author.objects.create(name="A")
    assert not Author.objects.exists()
    assert events == []


def test_save_within_post_save_is_logged(events):
    def save_again(instance, created, **kwargs):
        if created:
            instance.name = "second"
            instance.save()

    post_save.connect(save_again, sender=Author)
    try:
        author = Author.objects.create(name="first")
    finally:
        post_save.disconnect(save_again, sender=Author)
    assert last(events).after["name"] == "second"
    assert {id for _, _, id in changes(events)} == {str(author.pk)}
    assert "_realtime_saves" not in author.__dict__


def test_change_by_pre_save_receiver_is_logged(events):
    def capitalize(instance, **kwargs):
        instance.name = instance.name.upper()

    pre_save.connect(capitalize, sender=Author)
    try:
        Author.objects.create(name="a")
    finally:
        pre_save.disconnect(capitalize, sender=Author)
    assert last(events).after["name"] == "A"


def test_each_database_logs_at_its_own_commit(events):
    with transaction.atomic(using="other"):
        Post.objects.using("other").create(title="other")
        with transaction.atomic():
            Post.objects.create(title="default")
        assert [e.after["title"] for e in events] == ["default"]
    assert [e.after["title"] for e in events] == ["default", "other"]


def test_saves_in_threads_are_logged_in_order(events):
    def save_many(n):
        for i in range(20):
            Post.objects.create(title=f"{n}-{i}")
        connection.close()

    threads = [threading.Thread(target=save_many, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    titles = [e.after["title"] for e in events]
    assert len(titles) == 80  # no thread failed with "database is locked"
    for n in range(4):
        assert [t for t in titles if t.startswith(f"{n}-")] == [f"{n}-{i}" for i in range(20)]


async def test_saves_in_async_code_are_logged(events, monkeypatch):
    post = await Post.objects.acreate(title="a")
    post.title = "b"
    await post.asave()
    await sync_to_async(post.save)()
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    post.save()  # in the running event loop
    await post.adelete()
    ops = [op for _, op, _ in changes(events)]
    assert ops == ["created", "updated", "updated", "updated", "deleted"]
    await asyncio.sleep(0)
    connection.close()


def test_concurrent_increments_have_exact_old_values(events):
    post = Post.objects.create(title="a", views=0)

    def save_many():
        for _ in range(15):
            twin = Post.objects.get(pk=post.pk)
            twin.views = F("views") + 1
            twin.save(update_fields=["views"])
        connection.close()

    threads = [threading.Thread(target=save_many) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pairs = sorted((e.before["views"], e.after["views"]) for e in events if e.op == "updated")
    assert pairs == [(n, n + 1) for n in range(45)]


def test_unwatched_models_have_no_listeners(events, settings):
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"comments": "app.Comment"}}
    assert "save_base" not in Post.__dict__
    assert not post_save.has_listeners(Author)
    assert not post_delete.has_listeners(Author)
    post = Post.objects.create(title="unwatched")
    Comment.objects.create(post=post, text="watched")
    assert [c for c, _, _ in changes(events)] == ["comments"]


def test_two_collections_of_one_model_are_logged(events, settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"all": "app.Author", "names": {"model": "app.Author", "track": False}}
    }
    author = Author.objects.create(name="A")
    author.name = "B"
    author.save()
    assert sorted(changes(events)) == sorted(
        (name, op, str(author.pk)) for name in ("all", "names") for op in ("created", "updated")
    )
    updates = {e.collection: e for e in events if e.op == "updated"}
    assert updates["all"].changed == ("name",)
    assert updates["names"].changed is None
    assert updates["names"].before is None

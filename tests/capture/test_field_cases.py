"""Writes that went wrong in projects; each test stands for a class of them."""

import copy
import pickle
from enum import Enum

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, models, transaction
from django.db.models import F
from django.db.models.signals import post_init, post_save, pre_save
from django.utils.functional import lazystr
from django.utils.html import format_html

from django_cocobase_realtime.managers import RealtimeManager
from django_cocobase_realtime.testing import capture_events
from tests.capture_app.models import (
    Book,
    Bug,
    Child,
    Code,
    Magazine,
    Numbered,
    Page,
    Parent,
    Readable,
    Reply,
    Task,
    Team,
    Ticket,
    UrgentBug,
)
from tests.support.watching import assert_log_gives_tables, forget_logged, logged, summary, watching

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


# update() with joins


def test_update_with_join_changes_each_parent_once():
    parents = [Parent.objects.create() for _ in range(3)]
    Child.objects.bulk_create(
        Child(parent=parent, text="x") for parent in parents for _ in range(600)
    )
    manager = RealtimeManager()
    manager.model, manager.name = Parent, "realtime"
    with watching(Parent, Child):
        queryset = manager.get_queryset().filter(child__text="x")
        assert queryset.update(n=F("n") + 1) == 3
        assert list(Parent.objects.values_list("n", flat=True)) == [1, 1, 1]
        assert summary() == [("parent", "updated", ("n",))] * 3


def test_update_of_parent_and_child_at_once_is_logged_for_siblings():
    with watching(Book, Magazine, Readable):
        book = Book.objects.create(title="D", pages=1)
        Magazine(readable_ptr_id=book.readable_ptr_id, pages=1).save()
        assert Book.objects.filter(pages=1, title="D").update(pages=2, title="P") == 1
        assert sorted(summary()[-3:]) == [
            ("book", "updated", ("pages", "title")),
            ("magazine", "updated", ("pages",)),
            ("readable", "updated", ("pages",)),
        ]
        assert_log_gives_tables()


def test_field_may_have_the_name_of_an_expression():
    with watching(Numbered):
        for f2 in (1, 2):
            Numbered.objects.bulk_create(
                [Numbered(f1=1, f2=f2)],
                update_conflicts=True,
                update_fields=["f2"],
                unique_fields=["f1"],
            )
        assert [event for _, event, _ in summary()] == ["created", "updated"]
        assert_log_gives_tables()


def test_update_of_many_rows_by_relation_is_logged_once_each():
    team = Team.objects.create(name="a")
    with watching(Ticket):
        Ticket.objects.bulk_create(Ticket(title=str(n), team=team) for n in range(1200))
        assert Ticket.objects.filter(team__name="a").update(title="t") == 1200
        assert_log_gives_tables()
        assert Ticket.objects.filter(team__name="a").delete()[0] == 1200
        assert_log_gives_tables()


# values that are not of the field's own type


class PageState(str, Enum):  # noqa: UP042 - StrEnum's __str__ gives the value
    DONE = "done"


class PageChoices(models.TextChoices):
    DONE = "done"


class Subclassed(str):
    def __str__(self):
        return "not the value"


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (format_html("<b>{}</b>", "<i>"), "<b>&lt;i&gt;</b>"),
        (lazystr("lazy"), "lazy"),
        (Subclassed("plain"), "plain"),
        (5, "5"),
    ],
    ids=["safe", "lazy", "subclass", "number"],
)
@pytest.mark.parametrize("durable", [True, False])
def test_text_of_another_type_is_saved_and_logged_as_plain_text(value, stored, durable):
    with watching(Page, durable=durable), capture_events() as events:
        page = Page.objects.create(html=value)
        Page.objects.bulk_create([Page(html=value)])
        page.save()
        Page.objects.update(html=value)
    assert {type(e.after["html"]) for e in events} == {str}
    assert {e.after["html"] for e in events} == {stored}
    assert len(events) == 5


@pytest.mark.parametrize("value", [PageState.DONE, PageChoices.DONE], ids=["enum", "choices"])
def test_member_of_enum_is_logged_as_its_value(value):
    with watching(Page):
        page = Page.objects.create(status=value)
        page.save()
        page.save(update_fields=["status"])
        Page.objects.update(status=value)
        Page.objects.bulk_update([page], ["status"])
        assert {change.after["status"] for change in logged()} == {"done"}
        assert_log_gives_tables()


async def test_subscriber_gets_event_of_member_of_enum(realtime, api_key, settings):
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"page": "capture_app.Page"}}
    async with realtime(token=api_key) as client:
        await client.subscribe("page", filters={"status": "done"})
        await Page.objects.acreate(status=PageState.DONE)
        event = await client.receive("event")
        assert event["document"]["data"]["status"] == "done"
        assert await client.receive_nothing()


def test_value_that_is_cut_or_rounded_by_database_is_logged_as_stored():
    from tests.app.models import Post

    with watching(Post):
        post = Post.objects.create(title="t", rating="1.239" if _is_postgres() else "1.23")
        post.rating = 2.5
        post.save()
        assert logged()[-1].after["rating"] == "2.50"
        assert_log_gives_tables()


def _is_postgres():
    return connection.vendor == "postgresql"


# errors of the project's own code


def test_error_of_pre_save_receiver_leaves_transaction_usable(receive):
    def refuse(**kwargs):
        raise ValidationError("no")

    receive(pre_save, Page, refuse)
    with watching(Page), transaction.atomic():
        with pytest.raises(ValidationError):
            Page.objects.create()
        assert not transaction.get_connection().needs_rollback
        assert Page.objects.count() == 0


def test_error_of_post_save_receiver_in_transaction_loses_no_event(receive):
    """A committed change is announced, also if a receiver raises before that of the app."""

    def refuse(**kwargs):
        raise ValidationError("no")

    receive(post_save, Page, refuse)
    with watching(Page), capture_events() as events:
        with transaction.atomic(), pytest.raises(ValidationError):
            Page.objects.create(slug="s")
        assert [e.op for e in events] == ["created"]
        assert Page.objects.count() == 1


def test_error_of_post_save_receiver_in_autocommit_is_handled_as_unwatched(receive):
    def refuse(**kwargs):
        raise ValidationError("no")

    receive(post_save, Page, refuse)
    counts = []
    with pytest.raises(ValidationError):
        Page.objects.create()
    counts.append(Page.objects.count())
    Page.objects.all().delete()
    with watching(Page), capture_events() as events:
        with pytest.raises(ValidationError):
            Page.objects.create()
        counts.append(Page.objects.count())
        assert len(events) == counts[1]
        assert_log_gives_tables()
    assert counts[0] == counts[1]


# receivers that write


def test_update_by_post_save_receiver_is_logged_after_creation(receive):
    def set_slug(instance, created, **kwargs):
        if created:
            Page.objects.filter(pk=instance.pk).update(slug=f"page-{instance.pk}")

    receive(post_save, Page, set_slug)
    with watching(Page):
        Page.objects.create()
        with transaction.atomic():
            Page.objects.create()
        assert [op for _, op, _ in summary()] == ["created", "updated"] * 2
        assert logged()[-1].after["slug"] == Page.objects.last().slug
        assert_log_gives_tables()


def test_writes_by_receivers_of_multi_table_child_are_logged_in_order(receive):
    def rename(instance, created, **kwargs):
        if created:
            Task.objects.filter(pk=instance.pk).update(title="renamed")

    receive(post_save, Bug, rename)
    receive(post_save, Task, rename)  # sent for saves of a Task alone
    with watching(Task, Bug, UrgentBug):
        Bug.objects.create(title="a")
        UrgentBug.objects.create(title="b")
        assert_log_gives_tables()
        assert summary("bug")[0][:2] == ("bug", "created")


# trackers, copies and pickles of instances


class Tracker:
    """Keeps the saved values of an instance, as packages for dirty fields do."""

    def __init__(self, receive):
        self.saved = {}
        receive(post_init, Page, lambda instance, **kwargs: self.keep(instance))
        receive(post_save, Page, self.saved_some)

    def keep(self, instance):
        instance.__dict__["_saved"] = {n: instance.__dict__.get(n) for n in ("a", "b")}

    def saved_some(self, instance, update_fields, **kwargs):
        for name in update_fields or ("a", "b"):
            instance._saved[name] = getattr(instance, name)

    @staticmethod
    def changed(instance):
        return {n for n, value in instance._saved.items() if getattr(instance, n) != value}


def test_tracker_keeps_unsaved_changes_after_partial_save(receive):
    Tracker(receive)
    with watching(Page):
        page = Page.objects.create()
        page.a, page.b = 1, 2
        page.save(update_fields=["a"])
        assert Tracker.changed(page) == {"b"}
        page.save()
        assert Tracker.changed(page) == set()


def test_instances_are_not_created_by_capture(receive):
    """A receiver of ``post_init`` sees the instances that it sees without a watched model."""
    seen = []
    receive(post_init, Page, lambda instance, **kwargs: seen.append(instance.pk))
    counts = []
    for watched in ((), (Page,)):
        with watching(*watched):
            seen.clear()
            page = Page.objects.create()
            page.a = 1
            page.save()
            Page.objects.update(a=3)
            page.delete()
            counts.append(len(seen))
    assert counts[0] == counts[1]


def test_instance_has_no_attributes_of_capture_and_can_be_copied_and_pickled():
    states = []
    for watched in ((), (Bug, Task)):
        with watching(*watched):
            bug = Bug.objects.create(title="a")
            bug.title = "b"
            bug.save()
            bug.refresh_from_db()
            twin = pickle.loads(pickle.dumps(bug))
            twin.severity = 3
            twin.save()
            copied = copy.copy(bug)
            copied.save(update_fields=["severity"])
            states.append((sorted(bug.__dict__), sorted(vars(bug._state))))
    assert states[0] == states[1]


# relations


def test_reverse_manager_is_captured_with_any_manager():
    with watching(Ticket):
        team = Team.objects.create(name="a")
        ticket = Ticket.objects.create(title="t")
        forget_logged()
        team.ticket_set.add(ticket)
        team.ticket_set.remove(ticket)
        team.ticket_set.set([ticket])
        team.ticket_set.clear()
        assert summary() == [("ticket", "updated", ("team",))] * 4
        forget_logged()
        team.ticket_set.add(ticket)
        team.delete()
        assert logged()[-1].after["team"] is None


def test_key_that_child_inherits_is_set_to_null_and_logged_for_child():
    with watching(Task, Bug, UrgentBug):
        team = Team.objects.create(name="a")
        UrgentBug.objects.create(title="t", team=team, backup=team)
        forget_logged()
        team.delete()
        updates = summary("urgentbug")
        assert {op for _, op, _ in updates} == {"updated"}
        assert {name for _, _, changed in updates for name in changed} == {"team", "backup"}
        last = logged("urgentbug")[-1]
        assert (last.after["team"], last.after["backup"]) == (None, None)


def test_related_rows_of_deleted_target_are_logged_by_name_of_field():
    from tests.app.models import Post, Tag

    with watching(Post):
        post, tag = Post.objects.create(title="p"), Tag.objects.create(name="t")
        post.tags.add(tag)
        forget_logged()
        tag.delete()
        assert summary() == [("post", "updated", ("tags",))]
        forget_logged()
        post.tags.add(Tag.objects.create(name="u"))
        post.delete()
        assert [op for _, op, _ in summary()][-1] == "deleted"


def test_key_of_any_length_is_logged():
    with watching(Code):
        code = Code.objects.create(code="k" * 600)
        code.label = "x"
        code.save()
        code.delete()
        assert [op for _, op, _ in summary()] == ["created", "updated", "deleted"]
        assert {change.document_id for change in logged()} == {"k" * 600}


# raw querysets and names of columns


def test_partial_and_deferred_reads_do_not_change_images():
    with watching(Page, Code):
        Page.objects.create(html="long", a=1)
        page = Page.objects.raw("SELECT id, a FROM capture_app_page")[0]
        page.a = 5
        page.save()
        deferred = Page.objects.defer("html").get()
        deferred.b = 1
        deferred.save()
        Code.objects.create(code="c", label="x")
        Code.objects.update(label="y")
        assert logged("code")[-1].changed == ("label",)
        assert_log_gives_tables()


def test_children_inserted_without_parents_are_logged():
    with watching(Reply, Readable):
        ticket = Ticket.objects.create(title="t")
        Reply.objects.bulk_create([Reply(ticket=ticket)] * 1)
        ticket.reply_set.create(text="b")
        ticket.reply_set.add(Reply(text="c"), bulk=False)
        ticket.delete()
        assert [op for _, op, _ in summary()] == ["created"] * 3 + ["deleted"] * 3
        assert_log_gives_tables()

"""Receivers that write or raise, and transactions."""

from contextlib import suppress

import pytest
from django.core.exceptions import FieldError, ValidationError
from django.db import DatabaseError, transaction
from django.db.models import F, Max, Q
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

from tests.capture_app.models import (
    Bug,
    Page,
    Parent,
    Stamp,
    Task,
    Team,
    Ticket,
)

from .common import script


def with_receiver(signal, sender, receiver, action):
    signal.connect(receiver, sender=sender)
    try:
        return action()
    finally:
        signal.disconnect(receiver, sender=sender)


def refuse(**kwargs):
    raise ValidationError("no")


def create_refused_page_within_atomic():
    with transaction.atomic():
        with suppress(ValidationError):
            Page.objects.create()
        return Page.objects.count()


@script
def pre_save_error_within_atomic():
    return with_receiver(pre_save, Page, refuse, create_refused_page_within_atomic)


@script
def post_save_error_within_atomic():
    return with_receiver(post_save, Page, refuse, create_refused_page_within_atomic)


@script
def pre_save_error_in_autocommit():
    return with_receiver(pre_save, Page, refuse, Page.objects.create)


@script
def pre_delete_error():
    page = Page.objects.create()
    return with_receiver(pre_delete, Page, refuse, page.delete)


@script
def post_delete_receiver_writes():
    def write(instance, **kwargs):
        Page.objects.create(slug="of deleted")
        Page.objects.update(a=F("a") + 1)

    return with_receiver(post_delete, Ticket, write, Ticket.objects.create(title="t").delete)


@script
def post_save_receiver_updates():
    def update(instance, created, **kwargs):
        if created:
            Page.objects.filter(pk=instance.pk).update(slug=f"page-{instance.pk}")

    return with_receiver(post_save, Page, update, lambda: Page.objects.create().slug)


@script
def post_save_receiver_saves_again():
    def save(instance, created, **kwargs):
        if created:
            instance.a = 9
            instance.save()

    return with_receiver(post_save, Page, save, lambda: Page.objects.create().a)


@script
def post_save_receiver_of_multi_table_child_saves():
    def save(instance, created, **kwargs):
        if created:
            Task.objects.filter(pk=instance.pk).update(title="by receiver")
            instance.severity = 8
            instance.save(update_fields=["severity"])

    return with_receiver(post_save, Bug, save, lambda: Bug.objects.create(title="b").severity)


@script
def pre_save_receiver_writes_other_rows():
    def write(instance, **kwargs):
        Team.objects.get_or_create(name="by pre_save")

    return with_receiver(pre_save, Page, write, lambda: Page.objects.create().pk)


@script
def pre_save_receiver_of_multi_table_child_saves_parent():
    bug = Bug.objects.create(title="a")

    def write(instance, **kwargs):
        task = Task.objects.get(pk=bug.pk)
        task.title = "from receiver"
        task.save()

    bug.severity = 4
    return with_receiver(pre_save, Bug, write, bug.save)


@script
def rolled_back_savepoints():
    page = Page.objects.create(a=1)
    for fail in (True, False):
        try:
            with transaction.atomic():
                page.a += 1
                page.save()
                Page.objects.create(a=page.a)
                if fail:
                    raise KeyError
        except KeyError:
            pass
    return Page.objects.count()


@script
def database_error_is_caught_in_savepoint():
    Parent.objects.create(slug="a")
    with transaction.atomic():
        for write in (
            lambda: Parent.objects.create(slug="a"),
            lambda: Parent.objects.bulk_create([Parent(slug="a")]),
            lambda: Parent.objects.update(n=None),
        ):
            with pytest.raises(DatabaseError), transaction.atomic():
                write()
        return Parent.objects.aggregate(Max("n"))


@script
def commit_hooks_run_in_order():
    calls = []
    with transaction.atomic():
        transaction.on_commit(lambda: calls.append("first"))
        Page.objects.create()
        transaction.on_commit(lambda: calls.append("second"))
        Page.objects.update(a=2)
    transaction.on_commit(lambda: calls.append("third"))
    return calls if len(calls) == 3 else "in a transaction"


@script
def file_is_uploaded_by_pre_save():
    from django.core.files.base import ContentFile

    stamp = Stamp(name="s", upload=ContentFile(b"x", name="f.txt"))
    stamp.save()
    name = stamp.upload.name
    stamp.upload.delete(save=False)
    return name.startswith("stamps/")


@script
def errors_of_filters():
    try:
        Page.objects.filter(unknown=1).update(a=1)
    except FieldError as error:
        return str(error)


@script
def iterating_while_writing():
    for n in range(5):
        Page.objects.create(a=n)
    for page in Page.objects.filter(Q(a__gt=1)).iterator(chunk_size=1):
        page.b = page.a
        page.save(update_fields=["b"])
    return list(Page.objects.order_by("pk").values_list("b", flat=True))

"""Saves of instances."""

from django.core import serializers
from django.db import IntegrityError, transaction
from django.db.models import F

from tests.capture_app.models import (
    Account,
    Book,
    Bug,
    Customer,
    Page,
    Parent,
    Readable,
    Reply,
    Sellable,
    Task,
    Team,
    Ticket,
    UrgentBug,
)

from .common import script


@script
def save_with_update_fields():
    page = Page.objects.create(a=1)
    page.a, page.b = 2, 3
    page.save(update_fields=["a"])
    return page.b, page._state.adding, sorted(page.__dict__)


@script
def save_with_empty_update_fields():
    page = Page.objects.create(a=1)
    page.a = 2
    page.save(update_fields=[])
    return Page.objects.get().a


@script
def save_with_expression():
    page = Page.objects.create(a=1)
    page.a = F("a") + 1
    page.save()
    page.refresh_from_db()
    return page.a


@script
def save_of_deleted_row_with_force_update():
    page = Page.objects.create()
    Page.objects.filter(pk=page.pk).delete()
    with transaction.atomic():
        page.save(force_update=True)


@script
def save_of_deleted_row_with_update_fields():
    page = Page.objects.create()
    Page.objects.filter(pk=page.pk).delete()
    with transaction.atomic():
        page.save(update_fields=["a"])


@script
def save_with_force_insert_of_existing_row():
    page = Page.objects.create()
    with transaction.atomic():
        page.save(force_insert=True)


@script
def save_of_duplicate_in_atomic_block():
    Parent.objects.create(slug="a")
    try:
        with transaction.atomic():
            Parent.objects.create(slug="a")
    except IntegrityError as error:
        return type(error), Parent.objects.count()


@script
def save_of_too_long_text():
    with transaction.atomic():
        Page.objects.create(slug="x" * 100)
    return Page.objects.count()


@script
def save_of_wrong_type():
    Page.objects.create(a="x")


@script
def save_of_unsaved_related_object():
    Reply.objects.create(ticket=Ticket(title="t"))


@script
def get_or_create_and_update_or_create():
    results = [Team.objects.get_or_create(name="a")[1] for _ in range(2)]
    results += [Page.objects.update_or_create(slug="s", defaults={"a": n})[1] for n in range(2)]
    results += [Ticket.objects.get_or_create(title="t", defaults={"team_id": 1})[1]]
    return results


@script
def save_of_deferred_instance():
    Page.objects.create(html="long", a=1)
    page = Page.objects.only("a").get()
    page.a = 2
    page.save()
    return page.get_deferred_fields()


@script
def refresh_after_save():
    page = Page.objects.create(a=1)
    Page.objects.update(a=5)
    page.refresh_from_db(fields=["a"])
    return page.a, page._state.db


@script
def save_of_copy_with_new_key():
    page = Page.objects.create(a=1)
    page.pk = None
    page._state.adding = True
    page.save()
    return Page.objects.count()


@script
def save_of_child_of_existing_parent():
    task = Task.objects.create(title="t")
    bug = Bug(task_ptr=task, severity=3)
    bug.__dict__.update({k: v for k, v in task.__dict__.items() if k != "_state"})
    bug.save()
    return Bug.objects.get().title


@script
def raw_save_of_child_of_existing_parent():
    task = Task.objects.create(title="t")
    Bug(task_ptr=task, severity=3).save_base(raw=True)
    return Bug.objects.get().title


@script
def saves_of_grandchild():
    bug = UrgentBug.objects.create(title="a", severity=1)
    bug.title = "b"
    bug.save()
    bug.severity = 2
    bug.save(update_fields=["severity"])
    bug.save(update_fields=["title", "deadline"])
    bug.save(update_fields=["title"])
    task = Task.objects.get()
    task.title = "by parent"
    task.save()
    return UrgentBug.objects.get().title


@script
def saves_of_two_parents():
    book = Book.objects.create(title="t", pages=1, price=2)
    book.pages, book.price = 3, 4
    book.save()
    readable = Readable.objects.get()
    readable.pages = 7
    readable.save()
    book.refresh_from_db()
    return book.pages, book.price


@script
def saves_of_child_with_own_key():
    customer = Customer.objects.create(number="n1", name="a")
    customer.name, customer.vip = "b", True
    customer.save()
    account = Account.objects.get()
    account.name = "c"
    account.save()
    return Customer.objects.get().name


@script
def fixture_of_multi_table_rows():
    bug = UrgentBug(pk=7, title="a", severity=2)
    text = serializers.serialize("json", [Task(pk=7, title="a"), Bug(pk=7, severity=2), bug])
    for item in serializers.deserialize("json", text):
        item.save()
    for item in serializers.deserialize("json", text.replace('"a"', '"b"')):
        item.save()
    return UrgentBug.objects.get().title


@script
def fixture_of_two_parents():
    rows = [
        Readable(readable_id=3, pages=1),
        Sellable(sellable_id=4, price=2),
        Book(readable_ptr_id=3, sellable_ptr_id=4, title="t"),
    ]
    text = serializers.serialize("json", rows)
    for _ in range(2):
        for item in serializers.deserialize("json", text):
            item.save()
    return Book.objects.get().price

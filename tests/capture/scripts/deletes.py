"""Deletions."""

from tests.capture_app.models import (
    Account,
    Book,
    Bug,
    Child,
    Code,
    Customer,
    Page,
    Parent,
    Readable,
    Sellable,
    Task,
    Team,
    Ticket,
    UrgentBug,
)

from .common import families, script


@script
def delete_with_cascade():
    families()
    return Parent.objects.filter(slug="s1").delete()


@script
def delete_by_join():
    families()
    return Parent.objects.filter(child__text="x").delete()


@script
def delete_of_children_by_parent():
    families()
    return Child.objects.filter(parent__slug="s0").delete()


@script
def delete_of_slice():
    families()
    return Child.objects.all()[:1].delete()


@script
def delete_of_instance_twice():
    page = Page.objects.create()
    twin = Page.objects.get()
    return page.delete(), page.pk, twin.delete()


@script
def delete_sets_null_and_default():
    team, other = Team.objects.create(name="a"), Team.objects.create(name="b")
    Ticket.objects.create(title="t", team=team)
    Task.objects.create(title="t", team=team, backup=other)
    Bug.objects.create(title="b", team=team, backup=team)
    UrgentBug.objects.create(title="u", team=other, backup=team)
    return team.delete()


@script
def delete_of_multi_table_rows():
    bugs = [UrgentBug.objects.create(title=str(n)) for n in range(4)]
    first = bugs[0].delete()
    second = bugs[1].delete(keep_parents=True)
    third = Bug.objects.filter(pk=bugs[2].pk).delete()
    return first, second, third, Task.objects.all().delete()


@script
def delete_of_two_parents():
    for n in range(3):
        Book.objects.create(title=str(n), pages=n, price=n)
    first = Book.objects.get(title="0").delete()
    return first, Sellable.objects.filter(price=1).delete(), Readable.objects.all().delete()


@script
def delete_of_child_with_own_key():
    Customer.objects.create(number="n1", name="a")
    Customer.objects.create(number="n2", name="b")
    return Customer.objects.filter(name="a").delete(), Account.objects.all().delete()


@script
def raw_delete():
    families()
    return Child.objects.filter(parent__slug="s0")._raw_delete("default")


@script
def delete_of_key_type_text():
    Code.objects.create(code="k" * 500)
    return Code.objects.filter(code__startswith="k").delete()

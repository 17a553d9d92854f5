"""``QuerySet.update`` in every form."""

from django.db import transaction
from django.db.models import Count, Exists, F, OuterRef, Subquery, Value
from django.db.models.functions import Concat, Upper

from tests.capture_app.models import (
    Account,
    Book,
    Bug,
    Child,
    Code,
    Customer,
    Ordered,
    Page,
    Parent,
    Person,
    Sellable,
    Task,
    Team,
    Ticket,
    UrgentBug,
)

from .common import families, script


@script
def update_with_join():
    families()
    return Parent.objects.filter(child__text="x").update(n=F("n") + 1)


@script
def update_with_join_and_annotation():
    families()
    counted = Parent.objects.annotate(children=Count("child"))
    return counted.filter(children__gt=1).update(n=F("n") + 1)


@script
def update_excluding_by_join():
    parents = families()
    Child.objects.filter(parent=parents[0]).update(text="y")
    return Parent.objects.exclude(child__text="y").update(n=5)


@script
def update_of_distinct():
    families()
    return Parent.objects.filter(child__text="x").distinct().update(n=F("n") + 1)


@script
def update_with_subquery():
    families()
    newest = Child.objects.filter(parent=OuterRef("pk")).order_by("-pk").values("pk")[:1]
    return Parent.objects.update(n=Subquery(newest))


@script
def update_where_exists():
    families()
    children = Child.objects.filter(parent=OuterRef("pk"))
    return Parent.objects.filter(Exists(children)).update(slug=Concat("slug", Value("!")))


@script
def update_of_slice():
    families()
    return Parent.objects.all()[:2].update(n=1)


@script
def update_of_primary_keys_in_slice():
    families()
    keys = Parent.objects.order_by("pk").values_list("pk", flat=True)[:2]
    return Parent.objects.filter(pk__in=list(keys)).update(n=1)


@script
def update_of_union():
    families()
    return Parent.objects.filter(n=0).union(Parent.objects.filter(n=1)).update(n=2)


@script
def update_by_reference_to_other_table():
    families()
    return Child.objects.update(text=F("parent__slug"))


@script
def update_of_unknown_field():
    families()
    return Parent.objects.update(unknown=1)


@script
def update_of_reverse_relation():
    families()
    return Parent.objects.update(child=1)


@script
def update_of_many_to_many_field():
    Person.objects.create(name="a")
    return Person.objects.update(friends=[1])


@script
def update_of_nothing():
    families()
    return Parent.objects.none().update(n=1), Parent.objects.filter(pk__in=[]).update(n=1)


@script
def update_that_swaps_columns():
    Page.objects.create(a=1, b=2)
    return Page.objects.update(a=F("b"), b=F("a"))


@script
def update_in_order():
    for n in range(3):
        Ordered.objects.create(rank=n, name=str(n))
    return Ordered.objects.order_by("-name").update(rank=F("rank") + 1)


@script
def update_that_violates_uniqueness():
    families()
    with transaction.atomic():
        return Parent.objects.update(slug="same")


@script
def update_of_not_null_column():
    families()
    with transaction.atomic():
        return Parent.objects.update(n=None)


@script
def update_of_wrong_type():
    families()
    return Parent.objects.update(n="no number")


@script
def update_of_primary_key():
    Code.objects.create(code="a", label="l")
    return Code.objects.filter(code="a").update(code="b")


@script
def update_that_shifts_primary_keys():
    for code in "abc":
        Code.objects.create(code=code)
    return Code.objects.update(code=Concat("code", Value("1")))


@script
def update_of_foreign_key_by_instance():
    ticket = Ticket.objects.create(title="t")
    return Ticket.objects.filter(pk=ticket.pk).update(team=Team.objects.create(name="a"))


@script
def update_with_several_fields_and_expressions():
    Page.objects.create(html="x", slug="y")
    return Page.objects.update(html=Upper("html"), slug=F("html"), a=Value(4) + F("b"))


@script
def update_by_raw_condition():
    families()
    return Parent.objects.extra(where=["n = %s"], params=[0]).update(n=1)


@script
def update_of_child_with_parents_columns():
    Bug.objects.create(title="a", severity=1)
    Bug.objects.create(title="b", severity=2)
    return Bug.objects.filter(severity=1).update(title="z", severity=9)


@script
def update_of_child_with_parents_columns_only():
    UrgentBug.objects.create(title="a", severity=1)
    return UrgentBug.objects.filter(title="a").update(title="z")


@script
def update_of_grandchild_with_columns_of_three_tables():
    UrgentBug.objects.create(title="a", severity=1)
    return UrgentBug.objects.update(title="z", severity=5, deadline="2026-01-02")


@script
def update_of_parent_table():
    UrgentBug.objects.create(title="a", severity=1)
    return Task.objects.update(title="b")


@script
def update_of_two_parents():
    Book.objects.create(title="t", pages=1, price=2)
    return Book.objects.update(title="u", pages=3, price=4), Sellable.objects.update(price=5)


@script
def update_of_child_with_own_key():
    Customer.objects.create(number="n1", name="a")
    first = Customer.objects.filter(number="n1").update(name="b", vip=True)
    return first, Account.objects.update(name="c")


@script
def update_by_inherited_condition():
    Bug.objects.create(title="a")
    return Bug.objects.filter(title="a").update(severity=3)

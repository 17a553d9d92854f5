"""``bulk_create`` and ``bulk_update``."""

from django.db.models import F

from tests.capture_app.models import (
    Bug,
    Code,
    Page,
    Parent,
    UrgentBug,
)

from .common import script


@script
def bulk_create_ignoring_conflicts():
    Parent.objects.create(slug="a", n=1)
    new = [Parent(slug=s, n=9) for s in ("a", "b", "b", None)]
    return [p.pk for p in Parent.objects.bulk_create(new, ignore_conflicts=True)]


@script
def bulk_create_updating_conflicts():
    Parent.objects.create(slug="a", n=1)
    new = [Parent(slug=s, n=9) for s in ("a", "b")]
    created = Parent.objects.bulk_create(
        new, update_conflicts=True, unique_fields=["slug"], update_fields=["n"]
    )
    return len(created)


@script
def bulk_create_updating_conflicts_on_primary_key():
    Code.objects.create(code="a", label="1")
    Code.objects.bulk_create(
        [Code(code="a", label="2"), Code(code="b", label="3")],
        update_conflicts=True,
        unique_fields=["pk"],
        update_fields=["label"],
    )


@script
def bulk_create_in_batches_with_and_without_keys():
    pages = [Page(pk=n if n % 2 else None, a=n) for n in range(1, 20, 3)]
    pages += [Page(pk=100, a=100)]
    created = Page.objects.bulk_create(pages, batch_size=2)
    return [page._state.adding for page in created]


@script
def bulk_create_violating_uniqueness():
    Parent.objects.bulk_create([Parent(slug="a"), Parent(slug="a")])


@script
def bulk_create_of_multi_table_model():
    Bug.objects.bulk_create([Bug(title="a")])


@script
def bulk_update_of_rows():
    pages = [Page.objects.create(a=n) for n in range(5)]
    for page in pages:
        page.a *= 2
        page.slug = str(page.a)
    return Page.objects.bulk_update(pages, ["a", "slug"], batch_size=2)


@script
def bulk_update_with_expressions():
    pages = [Page.objects.create(a=n) for n in range(3)]
    for page in pages:
        page.a = F("a") + 1
    return Page.objects.bulk_update(pages, ["a"])


@script
def bulk_update_of_multi_table_rows():
    bugs = [UrgentBug.objects.create(title=str(n)) for n in range(3)]
    for bug in bugs:
        bug.title, bug.severity = "new", 7
    return UrgentBug.objects.bulk_update(bugs, ["title", "severity"])

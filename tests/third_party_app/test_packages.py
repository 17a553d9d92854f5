"""Fields, managers and models of other packages: the log equals the tables."""

import json
import os

import pytest
from django.apps import apps

if not apps.is_installed("tests.third_party_app"):
    pytest.skip(
        "Needs --ds=tests.third_party_app.settings and the packages of the group third-party.",
        allow_module_level=True,
    )

from django.db import connection, transaction
from django.utils import translation
from djmoney.money import Money
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_cocobase_realtime.declarations.registry import registry
from tests.support.triggers import watching_by_triggers
from tests.support.watching import (
    assert_equality_filters_agree,
    assert_log_gives_tables,
    forget_logged,
    logged,
    outcome,
    summary,
    table_images,
    watching,
)
from tests.third_party_app.models import (
    Article,
    Car,
    Color,
    Hooked,
    Node,
    Product,
    Recipe,
    Recorded,
    Size,
    Tracked,
    Translated,
    Vehicle,
)

pytestmark = pytest.mark.django_db(transaction=True)
EXAMPLES = int(os.environ.get("EXAMPLES", "20"))

products = st.fixed_dictionaries(
    {
        "price": st.one_of(
            st.none(),
            st.builds(
                Money,
                st.decimals(-(10**6), 10**6, places=2),
                st.sampled_from(["EUR", "USD", "JPY"]),
            ),
        ),
        "phone": st.sampled_from(["", "+493012345678", "+12125552368"]),
        "size": st.sampled_from([None, Size.SMALL, Size.LARGE]),
        "color": st.sampled_from(list(Color)),
        "note": st.one_of(st.none(), st.sampled_from(["", "secret", "ä\U0001f600"])),
        "number": st.one_of(st.none(), st.integers(-5, 5)),
    }
)


@pytest.fixture(params=[watching, watching_by_triggers], ids=["signals", "triggers"])
def watch(request):
    return request.param


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(products, products)
def test_event_equals_row_and_filters_for_fields_of_packages(watch, first, second):
    with watch(Product):
        forget_logged()
        Product.objects.all().delete()
        forget_logged()
        product = Product.objects.create(**first)
        for name, value in second.items():
            setattr(product, name, value)
        product.save()
        Product.objects.bulk_create([Product(**second)])
        Product.objects.filter(pk=product.pk).update(**first)
        assert_log_gives_tables()
        assert_filters_agree(registry.get("product"))


def assert_filters_agree(collection):
    """Compare an equality filter in memory with the same filter in the database."""
    images = {
        key: collection.codec.decode(image, "default")
        for key, image in table_images(collection).items()
    }
    left_out = {"note", "number"}  # a query cannot compare encrypted values
    assert_equality_filters_agree(collection, images, collection.schema.keys() - left_out)


def test_field_with_members_of_enum_has_their_values(watch):
    with watch(Product):
        Product.objects.create(size=Size.SMALL)
        codec = registry.get("product").codec
        assert codec.decode(logged()[-1].after, "default")["size"] == 1


def test_encrypted_fields_are_logged_as_the_database_holds_them(watch):
    with watch(Product):
        Product.objects.create(note="secret", number=41)
        (change,) = logged()
        assert "secret" not in json.dumps(change.after)
        with connection.cursor() as cursor:
            cursor.execute("SELECT note FROM third_party_app_product")
            assert cursor.fetchone() == (change.after["note"],)
        decoded = registry.get("product").codec.decode(change.after, "default")
        assert decoded["note"] == "secret"


def test_tags_of_one_model_are_logged_for_rows_of_that_model_only(watch):
    with watch(Article, Recipe):
        article = Article.objects.create(title="a")
        Recipe.objects.bulk_create([Recipe(pk=article.pk, name="r")])
        forget_logged()
        article.tags.add("x")
        article.tags.set(["y"])
        article.tags.clear()
        assert {(c, op) for c, op, _ in summary()} == {("article", "updated")}
        assert_log_gives_tables_after(Article, Recipe)


def assert_log_gives_tables_after(*models):
    for model in models:
        last = {c.document_id: c.after for c in logged(model._meta.model_name)}
        images = table_images(registry.get(model._meta.model_name))
        assert all(images[key] == image for key, image in last.items())


def write_tree():
    root = Node.objects.create(name="root")
    children = [Node.objects.create(name=str(n), parent=root) for n in range(3)]
    children[0].refresh_from_db()
    Node.objects.create(name="leaf", parent=children[0])
    for child in children:
        child.refresh_from_db()
    children[0].move_to(children[2])
    children[1].refresh_from_db()
    children[1].delete()
    with transaction.atomic(), Node.objects.delay_mptt_updates():
        Node.objects.create(name="late", parent=Node.objects.get(name="root"))
    Node.objects.rebuild()


def test_saved_node_of_tree_is_logged_as_its_row():
    """The other nodes are moved by raw SQL, which only triggers see."""
    with watching(Node):
        root = Node.objects.create(name="root")
        for name in "abc":
            root.refresh_from_db()
            node = Node.objects.create(name=name, parent=root)
            change = logged()[-1]
            assert change.after == table_images(registry.get("node"))[str(node.pk)]


def test_tree_is_logged_by_triggers_with_all_moved_nodes():
    with watching_by_triggers(Node):
        write_tree()
        assert_log_gives_tables()


def test_polymorphic_rows_are_logged_for_each_table(watch):
    with watch(Vehicle, Car):
        car = Car.objects.create(name="c", doors=2)
        Vehicle.objects.create(name="v")
        Vehicle.objects.update(name="w")
        car = Vehicle.objects.get(pk=car.pk)
        car.doors = 5
        car.save()
        Car.objects.update(name="x", doors=3)
        assert_log_gives_tables()
        Vehicle.objects.all().delete()
        assert_log_gives_tables()


def test_translated_fields_are_logged_by_column(watch):
    with watch(Translated):
        row = Translated.objects.create(title="one")
        with translation.override("de"):
            row.title = "eins"
            row.save()
            Translated.objects.filter(title="eins").update(title="zwei")
        change = logged()[-1]
        assert (change.after["title_en"], change.after["title_de"]) == ("one", "zwei")
        assert_log_gives_tables()


@pytest.mark.parametrize("language", ["en", "de"])
async def test_snapshot_filter_and_event_of_translated_fields_agree(
    realtime, api_key, settings, language
):
    """A manager of the package would replace a field's name by that of the language."""
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"translated": "third_party_app.Translated"}}
    settings.LANGUAGE_CODE = language
    with translation.override("en"):
        b, a = [await Translated.objects.acreate(title=title) for title in "ba"]
        await Translated.objects.filter(pk=b.pk).aupdate(title_de="a")
        await Translated.objects.filter(pk=a.pk).aupdate(title_de="b")
    async with realtime(token=api_key) as client:
        await client.subscribe("translated", filters={"title": "a"}, snapshot=True)
        (document,) = (await client.receive("snapshot"))["documents"]
        assert (document["id"], document["data"]["title"]) == (str(a.pk), "a")
        await Translated.objects.filter(pk=b.pk).aupdate(title_de="x")
        assert await client.receive_nothing()
        await Translated.objects.filter(pk=a.pk).aupdate(title_de="y")
        data = (await client.receive("event"))["document"]["data"]
        assert data == {"title": "a", "title_en": "a", "title_de": "y"}
        await client.subscribe("translated", subscription="all", snapshot={"order": "title"})
        documents = (await client.receive("snapshot"))["documents"]
        assert [document["data"]["title"] for document in documents] == ["a", "b"]


@pytest.mark.parametrize("language", ["en", "de"])
def test_filters_of_translated_fields_agree(language):
    with watching(Translated):
        with translation.override("en"):
            rows = [Translated.objects.create(title=title) for title in ("b", "a")]
        for row, title in zip(rows, ("a", "b"), strict=True):
            Translated.objects.filter(pk=row.pk).update(title_de=title)
        collection = registry.get("translated")
        with translation.override(language):
            assert_equality_filters_agree(collection, table_images(collection), collection.schema)


def test_field_tracker_works_as_unwatched():
    results = []
    for watched in ((), (Tracked,)):
        with watching(*watched):
            Tracked.objects.all().delete()
            forget_logged()
            row = Tracked.objects.create()
            row.a, row.b = 1, 2
            row.save(update_fields=["a"])
            result = [row.tracker.has_changed("b"), row.tracker.changed()]
            row.status = "done"
            row.save()
            results.append([*result, row.tracker.changed(), row.tracker.has_changed("b")])
            assert_log_gives_tables()
    assert results[0] == results[1]
    assert results[1][0] is True


def test_history_is_written_and_logged():
    history = Recorded.history.model
    with watching(Recorded, history):
        row = Recorded.objects.create(name="a")
        row.name = "b"
        row.save()
        row.delete()
        assert [h.history_type for h in history.objects.order_by("pk")] == ["+", "~", "-"]
        assert_log_gives_tables()


def test_lifecycle_hooks_that_write_are_logged_in_order():
    with watching(Hooked):
        row = Hooked.objects.create(name="a")
        assert [op for _, op, _ in summary()] == ["created", "updated"]
        row.refresh_from_db()
        row.name = "b"
        row.save()
        assert (row.changes, logged()[-1].after["changes"]) == (1, 1)
        assert_log_gives_tables()


@pytest.mark.parametrize(
    "values",
    [
        {"price": Money(10**12, "EUR")},
        {"phone": "no number"},
        {"size": "no size"},
        {"color": "green"},
        {"number": "x"},
        {"price": Money(1, "EUR"), "note": "x" * 400},
    ],
)
def test_refused_values_are_refused_as_unwatched(values):
    outcomes = []
    for watched in ((), (Product,)):
        Product.objects.all().delete()
        with watching(*watched):
            kind, *detail = outcome(lambda: Product.objects.create(**values) and "created")
            outcomes.append((kind, detail[0], Product.objects.count()))
    assert outcomes[0] == outcomes[1]

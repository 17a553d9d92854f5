"""Triggers of rows in several tables, of through tables, and of tables with unusual keys."""

import pytest
from django.db import connection, models, transaction
from django.test.utils import isolate_apps

from django_cocobase_realtime.declarations.registry import registry
from tests.app.models import Diner, LongKey, Place, Post, Restaurant, Seat, Tag, UuidThing
from tests.capture_app.models import (
    Account,
    Book,
    Bug,
    Code,
    Customer,
    Group,
    Leadership,
    Magazine,
    Membership,
    NamedMembership,
    Person,
    Readable,
    Sellable,
    Task,
    UrgentBug,
    Wrapped,
    WrappedChild,
)
from tests.support.triggers import (
    created_tables,
    execute,
    is_postgres,
    watching_by_triggers,
    watching_by_triggers_of,
)
from tests.support.watching import (
    assert_log_gives_tables,
    forget_logged,
    logged,
    summary,
    table_images,
)

pytestmark = pytest.mark.django_db(transaction=True)


# rows in several tables


@pytest.mark.parametrize("watched", [(Place, Restaurant, Diner), (Diner,), (Restaurant,)])
def test_writes_to_each_table_of_a_row_are_logged(watched):
    with watching_by_triggers(*watched):
        diner = Diner.objects.create(name="a", stars=1)
        execute("UPDATE app_place SET name = 'b'")
        execute("UPDATE app_restaurant SET stars = 2")
        execute(f"UPDATE app_diner SET neon = {'true' if is_postgres() else 1}")
        diner.name, diner.stars, diner.neon = "c", 3, False
        diner.save()
        for model in watched:
            last = logged(model._meta.model_name)[-1]
            assert last.after["name"] == "c"
            assert last.document_id == str(diner.pk)
        assert_log_gives_tables()
        Restaurant.objects.create(name="without a diner")
        Place.objects.create(name="without a restaurant")
        assert_log_gives_tables()
        diner.delete(keep_parents=True)
        assert_log_gives_tables()
        Place.objects.all().delete()
        assert_log_gives_tables()
        assert not table_images(registry.get(watched[-1]._meta.model_name))


def test_row_is_created_when_its_own_table_is_written():
    with watching_by_triggers(Restaurant):
        Restaurant.objects.create(name="a", stars=1)
        (change,) = logged()
        assert change.op == "created"
        assert {name: change.after[name] for name in ("name", "stars")} == {"name": "a", "stars": 1}


def test_save_logs_no_update_for_tables_without_a_change():
    with watching_by_triggers(Diner):
        diner = Diner.objects.create(name="a", stars=1)
        forget_logged()
        diner.stars = 2
        diner.save()
        updates = [change.changed for change in logged()]
        # the save writes all tables; that of the collection's model is logged as always
        assert updates == [("stars",), ()]
        assert logged()[-1].after["stars"] == 2


def test_row_whose_parents_row_is_missing_is_logged():
    with watching_by_triggers(Restaurant):
        with transaction.atomic():
            place = Place.objects.create(name="a")
            execute("INSERT INTO app_restaurant (place_ptr_id, stars) VALUES (%s, 3)", [place.pk])
        Restaurant.objects.all().delete()
        forget_logged()
        if is_postgres():
            return  # a foreign key does not allow more
        with connection.constraint_checks_disabled():
            execute("INSERT INTO app_restaurant (place_ptr_id, stars) VALUES (77, 3)")
            execute("UPDATE app_restaurant SET stars = 4")
            execute("DELETE FROM app_restaurant")
        created, updated, deleted = logged()
        assert (created.document_id, created.after) == (
            "77",
            {"place_ptr": "77", "stars": 3},
        )
        assert (updated.changed, deleted.op) == (("stars",), "deleted")


def test_rows_with_two_parents_and_siblings():
    with watching_by_triggers(Readable, Sellable, Book, Magazine):
        book = Book.objects.create(title="t", pages=1, price=2)
        Magazine(readable_ptr_id=book.readable_ptr_id, pages=1).save()
        Book.objects.update(title="u", pages=3, price=4)
        execute("UPDATE capture_app_sellable SET price = 5")
        execute("UPDATE capture_app_readable SET pages = 6")
        assert_log_gives_tables()
        last = {name: logged(name)[-1].after for name in ("book", "magazine")}
        assert (last["book"]["pages"], last["book"]["price"]) == (6, 5)
        assert last["magazine"]["pages"] == 6
        Magazine.objects.all()._raw_delete("default")
        Book.objects.all().delete()
        assert_log_gives_tables()


def test_child_with_a_key_of_its_own():
    with watching_by_triggers(Account, Customer):
        Customer.objects.create(number="n1", name="a")
        execute("UPDATE capture_app_account SET name = 'b'")
        change = logged("customer")[-1]
        assert (change.op, change.document_id, change.changed) == ("updated", "n1", ("name",))
        Customer.objects.update(name="c", vip=True)
        assert_log_gives_tables()
        execute("UPDATE capture_app_customer SET number = 'n2'")
        ops = {(c.op, c.document_id) for c in logged("customer")[-2:]}
        assert ops == {("deleted", "n1"), ("created", "n2")}
        assert logged("customer")[-1].after is None or logged("customer")[-1].after["name"] == "c"


def test_children_of_three_generations_in_every_direction():
    with watching_by_triggers(Task, Bug, UrgentBug):
        bugs = [UrgentBug.objects.create(title=t, severity=1) for t in "ab"]
        Bug.objects.create(title="c")
        Task.objects.update(title="x")
        Bug.objects.filter(pk=bugs[0].pk).update(severity=5, title="y")
        UrgentBug.objects.update(deadline="2026-01-02", severity=7, title="z")
        UrgentBug.objects.bulk_update(
            [UrgentBug(pk=bug.pk, title="w", severity=8) for bug in bugs], ["title", "severity"]
        )
        assert_log_gives_tables()
        Bug.objects.filter(severity=8).delete()
        assert_log_gives_tables()
        assert len(table_images(registry.get("task"))) == 1


def test_rows_of_a_child_whose_keys_cannot_be_hashed():
    with watching_by_triggers(Wrapped, WrappedChild):
        WrappedChild.objects.create(id="a", n=1)
        Wrapped.objects.update(name="y")
        WrappedChild.objects.update(n=3, name="x")
        assert_log_gives_tables()
        assert logged("wrappedchild")[-1].document_id == "a"


# many-to-many fields


def updated(collection):
    """Return key and changed fields of the updated rows since the last call, sorted."""
    rows = [(c.op, c.document_id, c.changed) for c in logged(collection)]
    forget_logged()
    assert {op for op, _, _ in rows} <= {"updated"}
    return sorted((key, changed) for _, key, changed in rows)


def test_many_to_many_field_with_a_table_of_its_own():
    with watching_by_triggers(Post):
        post, tag = Post.objects.create(title="x"), Tag.objects.create(name="t")
        forget_logged()
        update = [(str(post.pk), ("tags",))]
        post.tags.add(tag)
        assert updated("post") == update
        post.tags.add(tag)
        assert updated("post") == []
        tag.post_set.remove(post)
        assert updated("post") == update
        execute("INSERT INTO app_post_tags (post_id, tag_id) VALUES (%s, %s)", [post.pk, tag.pk])
        assert updated("post") == update
        other = Post.objects.create(title="y")
        forget_logged()
        execute("UPDATE app_post_tags SET post_id = %s", [other.pk])
        assert updated("post") == sorted([(str(p.pk), ("tags",)) for p in (post, other)])
        execute("UPDATE app_post_tags SET id = id")
        assert updated("post") == []
        tag.delete()
        assert updated("post") == [(str(other.pk), ("tags",))]
        other.tags.create(name="u")
        forget_logged()
        other.delete()
        assert logged("post")[-1].op == "deleted"


@pytest.mark.skipif(not is_postgres(), reason="of PostgreSQL")
def test_truncate_of_a_through_table():
    with watching_by_triggers(Post):
        post = Post.objects.create(title="x")
        post.tags.create(name="t")
        Post.objects.create(title="without")
        forget_logged()
        execute("TRUNCATE app_post_tags")
        assert updated("post") == [(str(post.pk), ("tags",))]


def test_many_to_many_field_to_itself():
    with watching_by_triggers(Person):
        ada, bob = (Person.objects.create(name=name) for name in ("ada", "bob"))
        forget_logged()
        ada.friends.add(bob)
        assert updated("person") == sorted([(str(p.pk), ("friends",)) for p in (ada, bob)])
        ada.follows.add(bob)
        assert updated("person") == [(str(ada.pk), ("follows",))]
        Person.follows.through.objects.update(from_person=bob)
        assert updated("person") == sorted([(str(p.pk), ("follows",)) for p in (ada, bob)])


def test_many_to_many_field_with_a_through_model():
    with watching_by_triggers(Group):
        a, b = (Group.objects.create(name=name) for name in "ab")
        ada = Person.objects.create(name="ada")
        forget_logged()
        membership = Membership.objects.create(group=a, person=ada)
        assert updated("group") == [(str(a.pk), ("members",))]
        membership.role = "owner"
        membership.save()
        assert updated("group") == []
        Membership.objects.update(group=b)
        assert updated("group") == sorted([(str(g.pk), ("members",)) for g in (a, b)])
        NamedMembership.objects.create(group=a, person=ada)
        assert updated("group") == [(str(a.pk), ("named",))]
        execute("DELETE FROM capture_app_namedmembership")
        assert updated("group") == [(str(a.pk), ("named",))]


def test_many_to_many_field_with_a_through_model_in_several_tables():
    with watching_by_triggers(Group):
        a, b = (Group.objects.create(name=name) for name in "ab")
        ada = Person.objects.create(name="ada")
        forget_logged()
        leadership = Leadership.objects.create(group=a, person=ada)
        assert updated("group") == [(str(a.pk), ("members",))]
        leadership.group, leadership.since = b, 3
        leadership.save()
        assert updated("group") == sorted([(str(g.pk), ("members",)) for g in (a, b)])
        Leadership.objects.update(since=4)
        assert updated("group") == []
        leadership.delete()
        assert updated("group") == [(str(b.pk), ("members",))]


def test_many_to_many_field_of_rows_in_several_tables():
    """The field belongs to the parent; rows of the child show it, too."""
    with isolate_apps("tests.capture_app"):

        class Label(models.Model):
            name = models.CharField(max_length=20)

            class Meta:
                app_label = "capture_app"

        class Crate(models.Model):
            name = models.CharField(max_length=20)
            tags = models.ManyToManyField(Label)

            class Meta:
                app_label = "capture_app"

        class Box(Crate):
            size = models.IntegerField(default=0)

            class Meta:
                app_label = "capture_app"

        with created_tables(Label, Crate, Box), watching_by_triggers_of(crate=Crate, box=Box):
            box = Box.objects.create(name="b")
            tag = Label.objects.create(name="t")
            forget_logged()
            box.tags.add(tag)
            assert sorted((c.collection, c.changed) for c in logged()) == [
                ("box", ("tags",)),
                ("crate", ("tags",)),
            ]
            assert logged("box")[-1].after == {
                "id": str(box.pk),
                "crate_ptr": str(box.pk),
                "name": "b",
                "size": 0,
            }
            forget_logged()
            Crate.objects.create(name="c").tags.add(tag)
            assert summary("box") == []


# keys and columns


def test_composite_keys():
    with watching_by_triggers(Seat):
        Seat.objects.create(event='Zoë, "live"', number=1, holder="a")
        Seat.objects.bulk_create([Seat(event="b", number=n) for n in (2, 3)])
        execute("UPDATE app_seat SET holder = 'x' WHERE event = 'b'")
        execute("UPDATE app_seat SET number = 4 WHERE number = 3")
        execute("DELETE FROM app_seat WHERE number = 1")
        assert_log_gives_tables()
        ids = {(change.op, change.document_id) for change in logged()}
        assert ids >= {
            ("deleted", '["Zoë, \\"live\\"",1]'),
            ("updated", '["b",2]'),
            ("deleted", '["b",3]'),
            ("created", '["b",4]'),
        }


@pytest.mark.parametrize("key", ["", "a", "'\"\\", "ü" * 5000, "a,b", "\n", "[1]"])
def test_keys_that_are_text(key):
    with watching_by_triggers(LongKey, Code):
        LongKey.objects.create(path=key)
        execute("UPDATE app_longkey SET size = 1")
        execute("DELETE FROM app_longkey")
        assert [change.document_id for change in logged("longkey")] == [key] * 3
        Code.objects.create(code=key[:600], label="x")
        execute("UPDATE capture_app_code SET lbl = 'y'")
        change = logged("code")[-1]
        assert (change.document_id, change.changed) == (key[:600], ("label",))
        assert_log_gives_tables()


def test_uuid_keys():
    with watching_by_triggers(UuidThing):
        thing = UuidThing.objects.create(name="a")
        execute("UPDATE app_uuidthing SET name = 'b'")
        assert [change.document_id for change in logged()] == [str(thing.pk)] * 2


def test_binary_keys():
    with isolate_apps("tests.capture_app"):

        class Digest(models.Model):
            digest = models.BinaryField(primary_key=True)
            name = models.CharField(max_length=20)

            class Meta:
                app_label = "capture_app"

        with created_tables(Digest), watching_by_triggers_of(digest=Digest):
            Digest.objects.create(digest=b"\x00\xff", name="a")
            Digest.objects.update(name="b")
            execute("DELETE FROM capture_app_digest")
            changes = logged()
            assert [change.op for change in changes] == ["created", "updated", "deleted"]
            assert {change.document_id for change in changes} == {"AP8="}
            assert changes[1].changed == ("name",)


def test_wide_tables_and_unusual_names_of_columns():
    """SQLite has a limit for the arguments of a function, and for the depth of expressions."""
    columns = ["a'b", "a\\b", "a b", "Ä", "select", "new", "old", "x$body$y"]

    with isolate_apps("tests.capture_app"):
        fields = {f"f{n}": models.IntegerField(default=n) for n in range(400)}
        fields |= {
            f"odd{n}": models.CharField(max_length=20, default=f"v{n}", db_column=column)
            for n, column in enumerate(columns)
        }
        meta = type("Meta", (), {"app_label": "capture_app"})
        wide = type("Wide", (models.Model,), {**fields, "Meta": meta, "__module__": __name__})
        with created_tables(wide), watching_by_triggers_of(wide=wide):
            wide.objects.create()
            wide.objects.update(f399=7, odd0="w")
            wide.objects.all().delete()
            created, updated, deleted = logged()
            expected = {"id": created.document_id}
            expected |= {name: field.default for name, field in fields.items()}
            assert created.after == expected
            assert updated.changed == ("f399", "odd0")
            assert deleted.before == {**expected, "f399": 7, "odd0": "w"}

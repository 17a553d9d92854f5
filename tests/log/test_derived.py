"""Derived events: documents that show a related row are updated when it changes."""

import contextlib
import threading

import pytest
from django.contrib.auth import get_user_model
from django.db import connection, connections, transaction
from django.db.models import QuerySet

from django_cocobase_realtime.declarations.dependency_table import hidden_stream
from django_cocobase_realtime.log import derived as derived_module
from django_cocobase_realtime.log.derived import derive
from django_cocobase_realtime.log.retention import rotate_epoch, trim
from django_cocobase_realtime.log.sequencer import sequence
from django_cocobase_realtime.models import LogEvent, Stream
from tests.app.models import Author, Comment, Post, Tag
from tests.relations_app.models import Label, Organization, Project, Team, TeamMember, Ticket
from tests.support.log import read_all
from tests.support.triggers import execute, installed_triggers

pytestmark = pytest.mark.django_db(transaction=True)
HIDDEN = hidden_stream("default")


@pytest.fixture(params=["signals", "triggers"])
def declare(request, settings):
    """Declare the collection "posts", whose writes are captured in one of the ways."""
    stack = contextlib.ExitStack()

    def declare(model, *fields, **others):
        collections = {"posts": {"model": model, "fields": fields}, **others}
        settings.COCOBASE_REALTIME = {"COLLECTIONS": collections, "CAPTURE": request.param}
        if request.param == "triggers":
            stack.enter_context(installed_triggers())
        derive("default")
        return request.param

    with stack:
        yield declare


def derived(stream="posts"):
    """Return the changed fields of each event that is derived now, by document id."""
    read_all(stream)
    seen = Stream.objects.get(collection=stream).head
    derive("default")
    changes = [change for change in read_all(stream) if change.seq > seen]
    assert all(change.op == "updated" and change.before == change.after for change in changes)
    assert len({change.document_id for change in changes}) == len(changes)
    assert derive("default") == []
    return {change.document_id: change.changed for change in changes}


def ids(*rows):
    return {str(row.pk) for row in rows}


def test_renamed_row(declare):
    declare("app.Post", "title", "author.name")
    ada, ben = Author.objects.create(name="Ada"), Author.objects.create(name="Ben")
    derived()
    posts = [Post.objects.create(title="a", author=author) for author in (ada, ada, ben, None)]
    assert derived() == {}
    Author.objects.filter(pk=ada.pk).update(name="Ada L.")
    assert derived() == {str(post.pk): ("author.name",) for post in posts[:2]}
    event = read_all()[-1]
    assert event.after["title"] == "a"
    assert event.related == {"author.name": "Ada L."}
    assert event.related_seq == Stream.objects.get(collection=HIDDEN).head


def test_columns_that_are_not_shown(declare):
    declare("relations_app.Ticket", "assignee.username", "project.organization.name")
    user = get_user_model().objects.create_user("ada")
    organization = Organization.objects.create(name="o")
    project = Project.objects.create(name="p", organization=organization)
    ticket = Ticket.objects.create(assignee=user, project=project)
    derived()
    get_user_model().objects.update(email="a@b.c", password="x")
    Project.objects.update(name="q")
    Organization.objects.update(flags={"a": 1})
    assert derived() == {}
    get_user_model().objects.update(username="ada2")
    assert derived() == {str(ticket.pk): ("assignee.username",)}


def test_link_in_the_middle_of_a_path(declare):
    declare("relations_app.Ticket", "project.organization.name", "project.name")
    first, second = (Organization.objects.create(name=name) for name in "ab")
    project = Project.objects.create(name="p", organization=first)
    other = Project.objects.create(name="p", organization=second)
    tickets = [Ticket.objects.create(project=p) for p in (project, project, other)]
    derived()
    project.organization = second
    project.save()
    names = ("project.organization.name",)
    assert derived() == dict.fromkeys(ids(*tickets[:2]), names)
    Organization.objects.filter(pk=first.pk).update(name="c")
    assert derived() == {}
    second.name = "d"
    second.save()
    assert derived() == dict.fromkeys(ids(*tickets), names)
    Project.objects.filter(pk=other.pk).update(organization=None, name="q")
    assert derived() == {str(tickets[2].pk): ("project.organization.name", "project.name")}


def test_deletion_together_with_its_relation(declare):
    declare("relations_app.Ticket", "assignee.username", "project.name")
    user = get_user_model().objects.create_user("ada")
    projects = [Project.objects.create(name="p") for _ in range(2)]
    tickets = [Ticket.objects.create(assignee=user, project=project) for project in projects]
    derived()
    user.delete()  # SET_NULL
    projects[0].delete()  # CASCADE
    assert derived() == {}
    remaining = [change for change in read_all() if change.document_id == str(tickets[1].pk)]
    assert remaining[-1].after["assignee"] is None
    assert remaining[-1].related == {"assignee.username": None, "project.name": "p"}


def test_row_to_which_documents_still_refer(declare):
    declare("relations_app.Ticket", "organization.name", "project.slug.name")
    Organization.objects.create(name="o", slug="a")
    project = Project.objects.create(name="p", slug_id="a")
    ticket = Ticket.objects.create(organization_id="a", project=project)
    derived()
    # as with DO_NOTHING
    rows = Organization.objects.filter(slug="a")
    rows._raw_delete("default")
    names = ("organization.name", "project.slug.name")
    assert derived() == {str(ticket.pk): names}
    assert read_all()[-1].related == dict.fromkeys(names)
    Organization.objects.create(name="o", slug="b")
    assert derived() == {}
    Organization.objects.bulk_create([Organization(name="n", slug="a")])
    assert derived() == {str(ticket.pk): names}
    assert read_all()[-1].related == dict.fromkeys(names, "n")


def test_changed_key_of_a_related_row(declare):
    declare("relations_app.Ticket", "organization.name")
    for slug in "ab":
        Organization.objects.create(name=slug, slug=slug)
    tickets = [Ticket.objects.create(organization_id=slug) for slug in "abc"]
    derived()
    Organization.objects.filter(slug="a").update(slug="c")
    assert set(derived()) == ids(tickets[0], tickets[2])


def test_own_many_to_many_field(declare):
    declare("app.Post", "tags", "tags.name")
    tags = [Tag.objects.create(name=name) for name in "ab"]
    posts = [Post.objects.create(title=title) for title in "ab"]
    posts[0].tags.set(tags)
    derived()
    before = len(read_all())
    posts[1].tags.add(tags[1])
    assert derived() == {}, "the change of the field is an event already"
    assert len(read_all()) == before + 1
    assert read_all()[-1].related == {"tags": [str(tags[1].pk)], "tags.name": ["b"]}
    Tag.objects.filter(pk=tags[1].pk).update(name="c")
    assert derived() == dict.fromkeys(ids(*posts), ("tags.name",))
    tags[1].delete()
    derived()
    by_id = {change.document_id: change.related for change in read_all()}
    assert by_id[str(posts[0].pk)] == {"tags": [str(tags[0].pk)], "tags.name": ["a"]}
    assert by_id[str(posts[1].pk)] == {"tags": [], "tags.name": []}


@pytest.mark.parametrize("side", ["tag", "post"])
def test_many_to_many_field_of_the_other_side(declare, side):
    declare("app.Tag", "name", "post.title")
    tags = [Tag.objects.create(name=name) for name in "ab"]
    posts = [Post.objects.create(title=title) for title in "ab"]
    derived()
    post, tag = posts[0], tags[0]
    change = post.tags if side == "post" else tag.post_set
    other = tag if side == "post" else post
    for operation in (
        lambda: change.add(other),
        lambda: change.remove(other),
        lambda: change.set([other]),
        change.clear,
    ):
        operation()
        assert derived() == {str(tag.pk): ("post.title",)}
    change.add(other)
    derived()
    change.set([])
    assert set(derived()) == ids(tag)
    through = Post.tags.through
    through.objects.bulk_create([through(post=posts[1], tag=row) for row in tags])
    assert set(derived()) == ids(*tags)
    through.objects.filter(tag=tags[0]).update(post=posts[0])
    assert set(derived()) == ids(tags[0])
    through.objects.update(tag=tags[0])
    assert set(derived()) == ids(*tags)
    posts[1].delete()
    assert set(derived()) == ids(tags[0])


def test_rows_written_by_sql(declare):
    if declare("app.Tag", "name", "post.title") == "signals":
        pytest.skip("Only triggers see SQL.")
    tag = Tag.objects.create(name="a")
    post = Post.objects.create(title="a")
    derived()
    table = Post.tags.through._meta.db_table
    execute(f"INSERT INTO {table} (post_id, tag_id) VALUES (%s, %s)", [post.pk, tag.pk])
    assert set(derived()) == ids(tag)
    execute("UPDATE app_post SET title = 'b'")
    assert set(derived()) == ids(tag)
    execute(f"DELETE FROM {table}")
    assert set(derived()) == ids(tag)


def test_many_to_many_field_at_the_end_of_a_path(declare):
    declare("relations_app.Ticket", "project.labels.name")
    label = Label.objects.create(name="a")
    project, other = (Project.objects.create(name="p") for _ in range(2))
    tickets = [Ticket.objects.create(project=p) for p in (project, project, other)]
    derived()
    project.labels.add(label)
    assert set(derived()) == ids(*tickets[:2])
    label.project_set.set([other])
    assert set(derived()) == ids(*tickets)
    label.name = "b"
    label.save()
    assert set(derived()) == ids(tickets[2])


def test_many_to_many_field_of_a_related_row_of_the_same_model(declare):
    declare("relations_app.Project", "name", "parent.labels.name")
    label = Label.objects.create(name="a")
    parent = Project.objects.create(name="p")
    child = Project.objects.create(name="c", parent=parent)
    derived()
    parent.labels.add(label)
    assert set(derived()) == ids(child)
    parent.labels.clear()
    assert set(derived()) == ids(child)


def test_many_to_many_field_with_a_model_of_its_own(declare):
    declare("relations_app.Team", "name", "members.username")
    user, other = (get_user_model().objects.create_user(name) for name in "ab")
    teams = [Team.objects.create(name=name) for name in "ab"]
    member = TeamMember.objects.create(team=teams[0], user=user)
    derived()
    member.level = 1
    member.save()
    assert derived() == {}
    events = len(read_all())
    member.team = teams[1]
    member.save()
    assert derived() == {}, "the change of the field is an event already"
    assert len(read_all()) == events + 2
    user.username = "c"
    user.save()
    assert set(derived()) == ids(teams[1])
    other.delete()
    assert derived() == {}


def test_foreign_key_that_leads_back(declare):
    declare("app.Post", "title", "comment", "comment.text")
    posts = [Post.objects.create(title=title) for title in "ab"]
    derived()
    comment = Comment.objects.create(post=posts[0], text="a")
    assert derived() == {str(posts[0].pk): ("comment", "comment.text")}
    Comment.objects.update(text="b")
    assert set(derived()) == ids(posts[0])
    comment.post = posts[1]
    comment.save()
    assert set(derived()) == ids(*posts)
    comment.delete()
    assert set(derived()) == ids(posts[1])
    assert read_all()[-1].related == {"comment": [], "comment.text": []}


def test_columns_of_several_tables(declare):
    """The related row is one of a multi-table child."""
    from tests.relations_app.models import Bug

    declare(
        "relations_app.Project",
        "name",
        "ticket.title",
        bugs={"model": "relations_app.Bug", "fields": ["severity", "project.organization.name"]},
    )
    organization = Organization.objects.create(name="o")
    project = Project.objects.create(name="p", organization=organization)
    bug = Bug.objects.create(title="a", project=project)
    derived()
    derived("bugs")
    Bug.objects.update(title="b")
    assert set(derived()) == ids(project)
    derived("bugs")
    organization.name = "c"
    organization.save()
    assert set(derived("bugs")) == ids(bug)


def test_two_models_that_show_each_other(declare):
    """Two processes rename them at once, and derive at once."""
    declare(
        "app.Post",
        "title",
        "author.name",
        authors={"model": "app.Author", "fields": ["name", "post.title"]},
    )
    author = Author.objects.create(name="a")
    post = Post.objects.create(title="a", author=author)
    derived()
    derived("authors")
    heads = {name: len(read_all(name)) for name in ("posts", "authors")}
    barrier = threading.Barrier(2)

    def rename(rows, **values):
        for number in range(10):
            barrier.wait()
            rows.update(**{name: f"{value}{number}" for name, value in values.items()})
            derive("default")
        connections.close_all()

    threads = [
        threading.Thread(target=rename, args=(Author.objects.all(),), kwargs={"name": "n"}),
        threading.Thread(target=rename, args=(Post.objects.all(),), kwargs={"title": "t"}),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert derive("default") == []
    posts, authors = read_all("posts"), read_all("authors")
    assert posts[-1].document_id == str(post.pk)
    assert posts[-1].after["title"] == "t9"
    assert posts[-1].related == {"author.name": "n9"}
    assert authors[-1].after["name"] == "n9"
    assert authors[-1].related == {"post.title": ["t9"]}
    for name, changes in (("posts", posts), ("authors", authors)):
        # ten of its own, and not more than one for each of the ten of the other
        assert 10 <= len(changes) - heads[name] <= 20


def test_exactly_once_in_several_processes(declare):
    declare("app.Post", "title", "author.name")
    author = Author.objects.create(name="a")
    posts = [Post.objects.create(title="a", author=author) for _ in range(3)]
    derived()
    head = len(read_all())
    barrier = threading.Barrier(4)
    failures = []

    def run():
        try:
            for _ in range(5):
                barrier.wait()
                derive("default")
        except Exception as error:
            failures.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(5):
        Author.objects.update(name=f"n{number}")
        barrier.wait()
    for thread in threads:
        thread.join()
    derive("default")
    assert failures == []
    # renamed five times: each is derived from once, alone or together with the next
    changes = read_all()[head:]
    by_id = {str(post.pk): [c for c in changes if c.document_id == str(post.pk)] for post in posts}
    assert len({len(events) for events in by_id.values()}) == 1
    assert 1 <= len(by_id[str(posts[0].pk)]) <= 5
    assert all(events[-1].related == {"author.name": "n4"} for events in by_id.values())


def test_end_of_the_process_in_the_middle(declare, monkeypatch):
    declare("app.Post", "title", "author.name")
    author = Author.objects.create(name="a")
    post = Post.objects.create(title="a", author=author)
    derived()
    Author.objects.update(name="b")
    read_all()
    position = Stream.objects.get(collection=HIDDEN).derived
    original = derived_module._move_position

    def end(*args):
        original(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(derived_module, "_move_position", end)
    with pytest.raises(KeyboardInterrupt):
        derive("default")
    monkeypatch.undo()
    assert Stream.objects.get(collection=HIDDEN).derived == position
    assert set(derived()) == ids(post)


def epoch(stream="posts"):
    return Stream.objects.get(collection=stream).epoch


def test_more_documents_than_the_limit(declare, settings):
    declare("app.Post", "title", "author.name", others={"model": "app.Comment", "fields": ["text"]})
    settings.COCOBASE_REALTIME = {**settings.COCOBASE_REALTIME, "LIMITS": {"derived_events": 3}}
    author = Author.objects.create(name="a")
    Post.objects.bulk_create([Post(title="a", author=author) for _ in range(3)])
    read_all("others")
    derived()
    first, other = epoch(), epoch("others")
    author.name = "b"
    author.save()
    assert len(derived()) == 3
    assert epoch() == first
    Post.objects.create(title="a", author=author)
    derived()
    author.name = "c"
    author.save()
    assert derive("default")
    assert epoch() != first
    assert epoch("others") == other
    assert derived() == {}


@pytest.mark.parametrize("lose", ["trim", "rotate"])
def test_events_of_the_hidden_stream_that_were_lost(declare, lose):
    declare("app.Post", "title", "author.name", others={"model": "app.Comment", "fields": ["text"]})
    author = Author.objects.create(name="a")
    post = Post.objects.create(title="a", author=author)
    derived()
    read_all("others")
    first, other = epoch(), epoch("others")
    trim("default", max_age=None, max_events=0)
    derive("default")
    assert epoch() == first, "everything was derived before"
    if lose == "trim":
        Author.objects.update(name="b")
        trim("default", max_age=None, max_events=0)
    else:
        rotate_epoch("default", [HIDDEN])
    assert "posts" in derive("default")
    assert epoch() != first
    assert epoch("others") == other
    assert derive("default") == []
    Author.objects.update(name="c")
    assert set(derived()) == ids(post)


def test_lookup_that_fails(declare, monkeypatch, caplog):
    declare("app.Post", "title", "author.name")
    post = Post.objects.create(title="a", author=Author.objects.create(name="a"))
    derived()
    first = epoch()
    Author.objects.update(name="b")
    original = QuerySet.filter

    def fail(self, *args, **kwargs):
        if self.model is Post and "author_id__in" in kwargs:
            raise OverflowError("a mistake")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(QuerySet, "filter", fail)
    derive("default")
    monkeypatch.undo()
    assert epoch() != first
    assert "a mistake" in caplog.text
    Author.objects.update(name="c")
    assert set(derived()) == ids(post)


def test_value_that_the_log_does_not_contain(declare):
    declare("app.Post", "title", "comment.text")
    comment = Comment.objects.create(post=Post.objects.create(title="a"), text="a")
    derived()
    first = epoch()
    LogEvent.objects.create(
        collection=HIDDEN,
        transaction_id="x",
        op="updated",
        document_id=f"app.Comment {comment.pk}",
        before="{}",
        after="{}",
    )
    derive("default")
    assert epoch() != first


def commit(function, *args):
    """Call a function in another thread, with a connection of its own."""
    failures = []

    def run():
        try:
            function(*args)
        except Exception as error:
            failures.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert failures == []


def test_row_that_is_written_while_it_is_read(declare, monkeypatch):
    """No event has an older row than one with a lower number."""
    if connection.vendor != "postgresql":
        pytest.skip("On SQLite, transactions write one after the other.")
    declare("app.Post", "title", "author.name")
    post = Post.objects.create(title="0", author=Author.objects.create(name="a"))
    derived()
    Author.objects.update(name="b")
    titles = iter("123")
    read, append = derived_module.images_as_of, derived_module._append

    def read_images(*args):
        images = read(*args)
        commit(lambda: Post.objects.filter(pk=post.pk).update(title=next(titles)))
        return images

    def append_late(*args):
        commit(lambda: Author.objects.update(name="c"))
        append(*args)

    monkeypatch.setattr(derived_module, "images_as_of", read_images)
    monkeypatch.setattr(derived_module, "_append", append_late)
    derive("default")
    monkeypatch.undo()
    derive("default")
    changes = read_all()
    seen = [change.after["title"] for change in changes]
    assert seen == sorted(seen)
    assert seen[-1] == Post.objects.get().title == "3"
    assert changes[-1].related == {"author.name": "c"}


def test_event_waits_for_all_that_was_committed_before_its_row_was_read(declare, monkeypatch):
    """Rights that ended before the row was read have ended for its event."""
    if connection.vendor != "postgresql":
        pytest.skip("On SQLite, transactions write one after the other.")
    declare("app.Post", "title", "author.name")
    post = Post.objects.create(title="0", author=Author.objects.create(name="a"))
    derived()
    Author.objects.update(name="b")
    read = derived_module.images_as_of

    def read_images(*args):
        commit(lambda: Author.objects.create(name="later"))
        return read(*args)

    monkeypatch.setattr(derived_module, "images_as_of", read_images)
    derive("default")
    monkeypatch.undo()
    later = next(c for c in read_all(HIDDEN) if c.after["name"] == "later")
    event = read_all()[-1]
    assert event.document_id == str(post.pk)
    assert event.related_seq >= later.seq


def test_backlog_of_events_without_numbers(declare, monkeypatch):
    monkeypatch.setattr("django_cocobase_realtime.log.sequencer.BATCH_SIZE", 2)
    monkeypatch.setattr("django_cocobase_realtime.log.sequencer.BACKLOG_BATCH_SIZE", 4)
    declare("app.Post", "title", "author.name")
    author = Author.objects.create(name="a")
    for number in range(30):
        Post.objects.create(title=str(number), author=author)
        Author.objects.update(name=str(number))
    derive("default")
    assert LogEvent.objects.filter(seq=None).count() == 0
    changes = read_all()
    assert len(changes) == 60
    assert {change.document_id for change in changes[30:]} == ids(*Post.objects.all())
    assert derive("default") == []


def test_rolled_back_change(declare):
    declare("app.Post", "title", "author.name")
    Post.objects.create(title="a", author=Author.objects.create(name="a"))
    derived()
    with contextlib.suppress(ZeroDivisionError), transaction.atomic():
        Author.objects.update(name="b")
        raise ZeroDivisionError
    assert derived() == {}


def test_nothing_is_read_without_related_fields(declare, django_assert_num_queries):
    declare("app.Post", "title", others={"model": "app.Tag", "depends_on": ["app.Author"]})
    Author.objects.create(name="a")
    with django_assert_num_queries(0):
        assert derive("default") == []
    sequence("default", HIDDEN)
    assert Stream.objects.get(collection=HIDDEN).derived is None

"""Explanations agree with what a real subscription gets, and name what decided."""

import io
import json
from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async
from django.core.management import CommandError, call_command
from django.utils import timezone

from django_cocobase_realtime.log.cursor import encode
from django_cocobase_realtime.log.reader import fetch_new
from django_cocobase_realtime.log.retention import rotate_epoch, trim
from django_cocobase_realtime.models import ApiKey, LogEvent, Stream
from tests.app.models import Author, Patient, Post
from tests.relations_app.models import Project, Ticket

pytestmark = pytest.mark.django_db(transaction=True)

HERE = "tests.inspection.permissions"
AUTH = "django_cocobase_realtime.auth"


def run(*args, **options):
    """Return the exit code and output of the command."""
    out = io.StringIO()
    try:
        call_command("realtime_explain", *args, stdout=out, **options)
    except SystemExit as error:
        return error.code, out.getvalue()
    return 0, out.getvalue()


def declare(settings, permission=None, **options):
    """Declare the collection "posts", "tickets" and "patients" with a permission of this folder."""
    if permission is not None:
        options["permission"] = f"{HERE}.{permission}"
    tickets = {
        "model": "relations_app.Ticket",
        "depends_on": ["relations_app.Project", "relations_app.Project_members"],
    }
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "posts": {"model": "app.Post", **options},
            "tickets": {**tickets, **options},
        },
        "AUTHENTICATORS": [
            f"{AUTH}.api_key.ApiKeyAuthenticator",
            f"{AUTH}.django_session.DjangoSessionAuthenticator",
            f"{AUTH}.anonymous.Anonymous",
        ],
    }


def text_of(filters):
    return ["--filter", json.dumps(filters)] if filters else []


async def is_in_snapshot(client, collection, document, filters):
    """Return whether a real subscription gets a document."""
    ask = {"type": "subscribe", "collection": collection, "filters": filters, "snapshot": True}
    reply = await client.request(ask)
    if reply["type"] == "error":
        return False
    documents = (await client.receive("snapshot"))["documents"]
    await client.request({"type": "unsubscribe", "collection": collection})
    return document in [item["id"] for item in documents]


# permission, options of the collection, client, filter, values of the post, and the reason
CASES = [
    (None, {}, "user", {}, {}, None),
    (None, {}, "key", {}, {}, None),
    (None, {}, "visitor", {}, {}, "does not have public = True"),
    (None, {"public": True}, "visitor", {}, {}, None),
    (None, {}, "scoped", {}, {}, "restricted to the collections authors"),
    ("Refused", {}, "user", {}, {}, "Refused.can_subscribe does not return a true value"),
    ("OnlyOfOneAuthor", {}, "user", {}, {}, "OnlyOfOneAuthor.can_subscribe"),
    ("OnlyOfOneAuthor", {}, "user", {"author": 1}, {}, "author = 1: the row has null"),
    ("Raises", {}, "user", {}, {}, "Raises.visible_to of collection 'posts' failed: ValueError"),
    ("Wrong", {}, "user", {}, {}, "titel"),
    ("NoBoolean", {}, "user", {}, {}, "NoBoolean.visible_to of collection 'posts' failed"),
    ("Nothing", {}, "user", {}, {}, "Nothing.visible_to returns False"),
    ("Unknown", {}, "user", {}, {}, "Unknown.visible_to returns None"),
    ("Small", {}, "user", {}, {"views": 4}, None),
    ("Small", {}, "user", {}, {"views": 5}, "Small.visible_to: views < 5: the row has 5"),
    ("Own", {}, "user", {}, {"owner": True}, None),
    ("Own", {}, "user", {}, {}, "the row has null"),
    ("Own", {}, "key", {}, {}, "owner compared with None, which matches no row"),
    ("NotOwn", {}, "key", {}, {}, "owner compared with None, which matches no row"),
    ("NotOwn", {}, "user", {}, {"owner": True}, "this clause must not match, but does: owner ="),
    ("NotOwn", {}, "user", {}, {}, None),
    ("NotDrafts", {}, "user", {}, {}, "status = 'draft': the row has 'draft'"),
    ("PublishedOrOwn", {}, "user", {}, {}, "one of these must match: status = 'published'"),
    ("PublishedOrOwn", {}, "user", {}, {"owner": True}, None),
    ("OwnOrPublished", {}, "user", {}, {}, "one must show it"),
    ("OwnOrPublished", {}, "user", {}, {"status": "published"}, None),
    ("AdminAndOwn", {}, "user", {}, {"owner": True}, "IsAdminUser.can_subscribe does not"),
    ("NotPublished", {}, "user", {}, {"status": "published"}, "which shows the row"),
    ("NotPublished", {}, "user", {}, {}, None),
    ("FewViews", {}, "user", {}, {"views": 10}, "FewViews.has_object_permission returns False"),
    ("FewViews", {}, "user", {}, {"views": 1}, None),
    ("NotFew", {}, "user", {}, {"views": 1}, "the opposite of FewViews, which shows the row"),
    ("NotFew", {}, "user", {}, {"views": 10}, None),
    ("PublishedFew", {}, "user", {}, {"status": "published", "views": 10}, "FewViews.has_object"),
    ("PublishedFew", {}, "user", {}, {"views": 1}, "status = 'published': the row has 'draft'"),
    ("RaisesForRow", {}, "user", {}, {}, "RaisesForRow.has_object_permission of collection"),
    ("SmallRaisingRow", {}, "user", {}, {"views": 9}, "views < 5: the row has 9"),
    ("TitlesOnly", {}, "user", {}, {}, None),
    ("TitlesOnly", {}, "user", {"status": "draft"}, {}, "invalid_filter"),
    (None, {"fields": ["title"]}, "user", {"body": "x"}, {}, "invalid_filter"),
    (None, {}, "user", {"views": "many"}, {}, "invalid_filter"),
    (None, {"project_field": "project"}, "user", {}, {"project": "b"}, "project = 'default'"),
    (None, {"soft_delete": {"status": "gone"}}, "user", {}, {"status": "gone"}, "soft delete"),
    (None, {"soft_delete": {"status": "gone"}}, "user", {}, {}, None),
]
# filter of the client, values of the post, and the clause that decides
FILTERS = [
    ({"status": "open"}, {}, "status = 'open': the row has 'draft'"),
    ({"status__ne": "draft"}, {}, "status != 'draft'"),
    ({"status__in": ["a", "b"]}, {}, "status in ['a', 'b']: the row has 'draft'"),
    ({"status__notin": ["draft", "b"]}, {}, "status not in ['draft', 'b']: the row has 'draft'"),
    ({"views__gt": 7}, {"views": 7}, "views > 7: the row has 7"),
    ({"views__gte": 8}, {"views": 7}, "views >= 8: the row has 7"),
    ({"views__lt": 7}, {"views": 7}, "views < 7: the row has 7"),
    ({"views__lte": 6}, {"views": 7}, "views <= 6: the row has 7"),
    ({"views__between": [8, 9]}, {"views": 7}, "views >= 8: the row has 7"),
    ({"title__contains": "Ab"}, {"title": "x"}, "title contains 'ab': the row has 'x'"),
    ({"title__startswith": "a"}, {"title": "x"}, "title startswith 'a': the row has 'x'"),
    ({"title__endswith": "a"}, {"title": "x"}, "title endswith 'a': the row has 'x'"),
    ({"rating__isnull": False}, {}, "rating is not null: the row has null"),
    ({"rating": "1.50"}, {}, "rating = 1.50: the row has null"),
    ({"meta.size": 5}, {"meta": {"size": 6}}, "meta.size = 5: the row has 6"),
    ({"meta.tags__contains": "a"}, {"meta": {"tags": ["b"]}}, "meta.tags contains 'a'"),
    ({"created_at__lt": "2020-01-01T00:00:00Z"}, {}, "created_at < 2020-01-01T00:00:00+00:00"),
    ({"$or": [{"views": 1}, {"title": "x"}]}, {"title": "y"}, "one of these must match: views = 1"),
    ({"$not": {"views": {"lt": 9}}}, {}, "this clause must not match, but does: views < 9"),
    ({"$not": {"$or": [{"views": 0}, {"title": "y"}]}}, {}, "must not match, but does: one of"),
    ({"$or": [{"views": 0}, {"title": "y"}]}, {}, None),
    ({"status": "draft", "views__gte": 0}, {}, None),
]


@pytest.fixture
def clients(user, api_key, transactional_db):
    """The credentials of a connection, and the options of the command, of each kind of client."""
    prefix = api_key.split("_")[1]
    scoped, scoped_text = ApiKey.objects.create_key("scoped", collections=["authors"])
    return {
        "user": ({"user": user}, ["--user", str(user.pk)]),
        "key": ({"token": api_key}, ["--key", prefix]),
        "scoped": ({"token": scoped_text}, ["--key", scoped.prefix]),
        "visitor": ({}, ["--anonymous"]),
    }


async def compare(realtime, clients, who, filters, document, reason, collection="posts"):
    """Compare the explanation with a real subscription, and with the expected reason."""
    credentials, options = clients[who]
    arguments = [*options, "--collection", collection, "--document", document, *text_of(filters)]
    code, output = await sync_to_async(run)(*arguments)
    async with realtime(**credentials) as client:
        gets = await is_in_snapshot(client, collection, document, filters)
    context = f"{who} {filters} {reason}\n{output}"
    assert (code == 0) is gets is (reason is None), context
    verdict = output.strip().splitlines()[-1]
    assert verdict.startswith("Delivered" if reason is None else "Not delivered"), context
    assert reason is None or reason in verdict, context
    assert "the message is not shown" not in output


async def test_reason_is_that_of_real_subscription(realtime, clients, user, settings):
    for permission, options, who, filters, values, reason in CASES:
        declare(settings, permission, **options)
        own = {"owner": user} if values.get("owner") else {}
        post = await Post.objects.acreate(**{"title": "a", **values, **own})
        await compare(realtime, clients, who, filters, str(post.pk), reason)


async def test_clause_of_client_filter_is_named(realtime, clients, settings):
    declare(settings)
    credentials, options = clients["user"]
    async with realtime(**credentials) as client:
        for filters, values, reason in FILTERS:
            document = str((await Post.objects.acreate(**values)).pk)
            arguments = ["--collection", "posts", "--document", document, *text_of(filters)]
            code, output = await sync_to_async(run)(*options, *arguments)
            gets = await is_in_snapshot(client, "posts", document, filters)
            assert (code == 0) is gets is (reason is None), output
            assert reason is None or reason in output.splitlines()[-1], output


async def test_key_sets_are_read_now(realtime, clients, user, settings):
    declare(settings, "OwnProjects", filters=["project.name"])
    settings.COCOBASE_REALTIME["COLLECTIONS"].pop("posts")
    mine, other = [await Project.objects.acreate(name=name) for name in ("mine", "other")]
    await mine.members.aadd(user)
    shown, hidden, without = [
        str((await Ticket.objects.acreate(project=project)).pk) for project in (mine, other, None)
    ]
    queryset = "project in (queryset of Project): the row has"
    expected = [
        ("user", {}, shown, None),
        ("user", {}, hidden, f"{queryset} {other.pk}, which the queryset does not return"),
        ("user", {}, without, f"{queryset[:-4]} has null"),
        ("key", {}, shown, "which the queryset does not return"),
        ("user", {"project.name": "mine"}, shown, None),
        ("user", {"project.name": "x"}, shown, "filter of the client"),
    ]
    for who, filters, document, reason in expected:
        await compare(realtime, clients, who, filters, document, reason, "tickets")
    await mine.members.aremove(user)
    reason = "which the queryset does not return; it returns no key"
    await compare(realtime, clients, "user", {}, shown, reason, "tickets")


async def test_query_that_is_refused_is_explained(realtime, clients, settings):
    declare(settings, "Extra")
    settings.COCOBASE_REALTIME["COLLECTIONS"].pop("posts")
    ticket = await Ticket.objects.acreate()
    reason = "replace extra() or RawSQL by expressions of the ORM"
    await compare(realtime, clients, "user", {}, str(ticket.pk), reason, "tickets")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"revoked_at": timezone.now()}, "was revoked at"),
        ({"expires_at": timezone.now() - timedelta(days=1)}, "expired at"),
        ({"user": "inactive"}, "who is not active"),
        ({}, None),
    ],
)
def test_state_of_key_is_explained(user, settings, change, reason):
    declare(settings)
    post = Post.objects.create()
    key, text = ApiKey.objects.create_key("x", user=user)
    if change.pop("user", None):
        user.is_active = False
        user.save()
    ApiKey.objects.filter(pk=key.pk).update(**change)
    code, output = run("--key", text, "--collection", "posts", "--document", str(post.pk))
    assert (code == 0) is (reason is None), output
    assert reason is None or reason in output.splitlines()[-1]
    assert text.split("_")[2] not in output


def test_clients_and_documents_that_do_not_exist_are_named(user, settings):
    declare(settings)
    post = Post.objects.create()
    ask = ("--collection", "posts", "--document")
    who = ("--user", "ada")
    for name in ("ada", str(user.pk)):
        assert run("--user", name, *ask, str(post.pk))[0] == 0
    expected = [
        (("--user", "99", *ask, str(post.pk)), "there is no user with the username or id '99'"),
        (("--key", "abcdefgh", *ask, str(post.pk)), "there is no API key with this prefix"),
        ((*who, *ask, "999"), "app.Post has no row with the id '999'"),
        ((*who, *ask, "abc"), "no row can have the id 'abc'"),
        ((*who, "--collection", "pots", "--document", "1"), "there is no collection 'pots'"),
    ]
    for arguments, reason in expected:
        code, output = run(*arguments)
        assert code == 1, output
        assert reason in output.splitlines()[-1]
    user.is_active = False
    user.save()
    assert f"user {user.pk} is not active" in run(*who, *ask, str(post.pk))[1]
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": {"model": "app.Post", "public": True}}}
    assert "visitors are not accepted" in run("--anonymous", *ask, str(post.pk))[1]
    settings.COCOBASE_REALTIME["AUTHENTICATORS"] = []
    assert "API keys are not accepted" in run("--key", "abcdefgh", *ask, str(post.pk))[1]
    with pytest.raises(CommandError, match="Name a document"):
        run(*who, "--collection", "posts")


def test_explanation_as_json_names_each_step(user, settings):
    declare(settings, "Small")
    post = Post.objects.create(views=9)
    arguments = ("--user", "ada", "--collection", "posts", "--document", str(post.pk), "--json")
    code, output = run(*arguments)
    explanation = json.loads(output)
    assert (code, explanation["delivered"], explanation["event"]) == (1, False, None)
    assert "views < 5: the row has 9" in explanation["reason"]
    assert [step["passes"] for step in explanation["steps"]].count(False) == 1


def test_values_that_are_encrypted_or_look_secret_are_not_printed(user, settings):
    path = f"{HERE}.ByDiagnosis"
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "patients": {"model": "app.Patient", "permission": path},
            "authors": {"model": "app.Author", "permission": f"{HERE}.ByPassword"},
            "posts": {"model": "app.Post", "permission": f"{HERE}.BySecretInJson"},
        }
    }
    patient = Patient.objects.create(name="x", diagnosis="influenza")
    author = Author.objects.create(name="x", password="hunter3")
    post = Post.objects.create(meta={"token": "abc-row", "list": ["abc-listed"]})
    documents = {"patients": patient, "authors": author, "posts": post}
    for collection, row in documents.items():
        arguments = ("--user", "ada", "--collection", collection, "--document", str(row.pk))
        filters = ["--filter", 'meta.list__contains="x"'] if collection == "posts" else []
        code, output = run(*arguments, *filters)
        assert code == 1
        for secret in (
            "influenza",
            "measles",
            "hunter3",
            "hunter2",
            "abc-row",
            "abc-asked",
            "abc-listed",
        ):
            assert secret not in output, output


# events


def number_events(collection="posts"):
    """Give all events of a stream their numbers, and return those of the last ones."""
    fetch_new("default", collection, None)
    rows = LogEvent.objects.filter(collection=collection).order_by("seq")
    return list(rows.values_list("seq", flat=True))


async def replayed(realtime, credentials, position, head, **options):
    """Return the events that a real subscription gets, by the number of the event."""
    events = {}
    async with realtime(**credentials) as client:
        ask = {"type": "subscribe", "collection": "posts", "since": position, **options}
        reply = await client.request(ask)
        assert reply.get("resumed"), reply
        # a replay ends with the last event, or with a cursor if that is not for the client
        while (frame := await client.receive())["type"] != "cursor":
            seq = int(frame["cursor"].rpartition(".")[2])
            events[seq] = frame["event"]
            if seq == head:
                break
    return events


async def test_events_of_log_are_explained_like_a_replay(realtime, clients, user, settings):
    for permission, options in [
        ("Small", {}),
        ("Small", {"transitions": True}),
        ("Small", {"changed": ["title"]}),
        ("Small", {"events": ["created", "deleted"]}),
        ("FewViews", {"transitions": True}),
    ]:
        declare(settings, permission, soft_delete={"status": "gone"})
        credentials, who = clients["user"]
        async with realtime(**credentials) as client:
            start = (await client.subscribe("posts", **options))["cursor"]
        documents = []
        for views in (1, 20):
            post = await Post.objects.acreate(title="a", views=views)
            documents.append(str(post.pk))
            for values in (
                {"views": 2},
                {"views": 30},
                {"title": "b"},
                {"views": 3},
                {"title": "c"},
                {"status": "gone"},
                {"title": "d"},
                {"status": "back"},
            ):
                for name, value in values.items():
                    setattr(post, name, value)
                await post.asave()
            await post.adelete()
        numbers = await sync_to_async(number_events)()
        first = int(start.rpartition(".")[2])
        gets = await replayed(realtime, credentials, start, numbers[-1], **options)
        assert gets
        flags = ["--transitions"] if options.get("transitions") else []
        for name in ("changed", "events"):
            flags += [f"--{name}", *options[name]] if name in options else []
        for seq in [number for number in numbers if number > first]:
            arguments = [*who, "--collection", "posts", "--event", str(seq), "--json", *flags]
            code, output = await sync_to_async(run)(*arguments)
            explanation = json.loads(output)
            assert explanation["event"] == gets.get(seq), (options, seq, gets, output)
            assert code == (0 if seq in gets else 1)
            passes = [step["passes"] for step in explanation["steps"]]
            assert (False in passes) is (seq not in gets), output


def test_position_of_event_in_log_is_explained(user, settings):
    declare(settings)
    post = Post.objects.create()
    post.save()
    who = ("--user", "ada", "--collection", "posts")
    document = ("--document", str(post.pk))
    assert "has no number yet" in run(*who, *document)[1]
    assert "has no number yet" in run(*who, *document, "--event", "last")[1]
    numbers = number_events()
    code, output = run(*who, *document, "--event", "last")
    assert code == 0
    assert f"event {numbers[-1]} of" in output
    assert f"is number {numbers[-1]} of epoch" in run(*who, *document)[1]
    other = run(*who, "--document", "999", "--event", str(numbers[-1]))
    assert other[0] == 1
    assert f"is about the document '{post.pk}'" in other[1]
    code, output = run(*who, "--event", str(numbers[-1] + 5))
    assert code == 1
    assert "ahead_of_head" in output
    code, output = run(*who, "--event", "123456789012.abcd.1")
    assert code == 1
    assert "invalid_cursor" in output
    cursor = encode("posts", Stream.objects.get(collection="posts").epoch, numbers[-1])
    assert run(*who, "--event", cursor)[0] == 0
    rotate_epoch("default", ["posts"])
    code, output = run(*who, "--event", cursor)
    assert code == 1
    assert "epoch_changed" in output
    post.save()
    number_events()
    trim("default", max_age=None, max_events=0)
    code, output = run(*who, "--event", "1")
    assert code == 1
    assert "trimmed" in output.splitlines()[-1]
    assert "were trimmed" in run(*who, *document)[1]

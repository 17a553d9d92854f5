"""The AsyncAPI document is valid, up to date, and describes the frames that are sent."""

import importlib.util
import json

import fastjsonschema
import msgspec
import pytest
from asgiref.sync import sync_to_async

from django_cocobase_realtime import send_to_user
from django_cocobase_realtime.wire import commands, frame_types
from django_cocobase_realtime.wire.commands import COMMAND_TYPES
from tests.app.models import Post
from tests.docs.test_reference import DOCS, ROOT, make_frames
from tests.support.blocks import code_blocks

SCHEMA = ROOT / "tests" / "docs" / "asyncapi_schema" / "3.0.0.json"
GENERATOR = ROOT / "docs" / "make_asyncapi.py"
PROTOCOL = DOCS / "reference" / "protocol.md"
DOCUMENT = json.loads((DOCS / "reference" / "asyncapi.json").read_text())
# types whose keys make_frames() lists, by the headings of their sections
TYPES_BY_SECTION = {
    "auth": ("Authenticated",),
    "Changes of documents": ("DocumentEvent",),
    "Broadcasts and messages": ("BroadcastEvent",),
    "Presence": ("Presence",),
    "Snapshot": ("SnapshotPage",),
    "Cursor": ("Cursor",),
    "Window": ("WindowChange",),
    "Aggregate": ("AggregateChange",),
    "Moved": ("Moved",),
    "Resync": ("ResyncRequest",),
    "Errors": ("Error",),
    "Close codes": ("Closing",),
}


def load_generator():
    spec = importlib.util.spec_from_file_location("make_asyncapi", GENERATOR)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generator = load_generator()


def validator(names):
    """Return a function that raises if a frame is none of the types."""
    return fastjsonschema.compile(
        {
            "components": DOCUMENT["components"],
            "anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in names],
        },
        use_default=False,
    )


@pytest.fixture(scope="module")
def validate_command():
    return validator([cls.__name__ for cls in COMMAND_TYPES.values()])


@pytest.fixture(scope="module")
def validate_frame():
    return validator([cls.__name__ for cls in frame_types.FRAME_TYPES])


def test_document_is_up_to_date():
    message = "Run `make asyncapi`."
    assert generator.TARGET.read_text() == generator.make_text(), message


def test_document_is_valid():
    validate = fastjsonschema.compile(json.loads(SCHEMA.read_text()))
    validate(DOCUMENT)
    with pytest.raises(fastjsonschema.JsonSchemaValueException):
        validate({**DOCUMENT, "info": {"title": "without a version"}})


def test_references_lead_to_parts_of_the_document():
    def references(value):
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            for part in value.values():
                yield from references(part)
        elif isinstance(value, list):
            for part in value:
                yield from references(part)

    for reference in set(references(DOCUMENT)):
        part = DOCUMENT
        for key in reference.removeprefix("#/").split("/"):
            part = part[key]


def test_every_request_and_frame_is_a_message():
    messages = DOCUMENT["components"]["messages"]
    assert {message["name"] for message in messages.values()} == {
        *COMMAND_TYPES,
        *(cls.__struct_config__.tag for cls in frame_types.FRAME_TYPES),
    }
    operations = DOCUMENT["operations"]
    assert set(operations) == {*COMMAND_TYPES, "sendEvents"}
    used = json.dumps(operations)
    assert [name for name in messages if f'/messages/{name}"' not in used] == []


def test_keys_of_messages_are_described():
    schemas = DOCUMENT["components"]["schemas"]
    # the replies that only repeat the names of the request have no table
    names = DOCUMENT["components"]["messages"].keys() - {
        "Unsubscribed", "Left", "StateSet", "Sent", "Events",
    }  # fmt: skip
    without = {
        f"{name}.{key}"
        for name in names | {"Window", "Aggregate", "Limits", "Group"}
        for key, schema in schemas[name]["properties"].items()
        if "description" not in schema and key not in ("type", "id")
    }
    assert without == set()


@pytest.mark.parametrize("title", make_frames())
def test_types_have_the_keys_of_frames(title):
    sent = make_frames()[title].keys() - {"type"}
    keys = {
        field.name
        for name in TYPES_BY_SECTION[title]
        for field in msgspec.structs.fields(getattr(frame_types, name))
    }
    assert keys - {"id"} == sent - {"id"}


def test_examples_of_the_page_are_valid(validate_command, validate_frame):
    decoder = json.JSONDecoder()
    count = 0
    for block in code_blocks(PROTOCOL, "json"):
        rest = block.strip()
        while rest:
            frame, end = decoder.raw_decode(rest)
            rest = rest[end:].strip()
            is_command = frame["type"] in COMMAND_TYPES
            (validate_command if is_command else validate_frame)(frame)
            count += 1
    assert count > 12


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "auth", "token": "t", "batch": True},
        {"type": "subscribe", "collection": "posts", "id": "1", "unknown": 1},
        {"type": "subscribe", "collection": "posts", "snapshot": {"limit": 3, "order": "title"}},
        {"type": "subscribe", "collection": "posts", "window": {"limit": 3}},
        {"type": "subscribe", "collection": "posts", "window": {"limits": 3}},
        {"type": "subscribe", "collection": "posts", "aggregate": {"count": True}},
        {"type": "subscribe", "collection": "posts", "aggregate": {"count": False}},
        {"type": "subscribe", "collection": "posts", "events": ["created", "removed"]},
        {"type": "subscribe", "collection": "", "filters": {}},
        {"type": "subscribe", "filters": {}},
        {"type": "join", "room": "r", "history": -1},
        {"type": "broadcast", "room": "r", "message": None, "idempotency_key": "x" * 128},
        {"type": "broadcast", "room": "r", "message": None, "idempotency_key": "x" * 129},
        {"type": "broadcast", "room": "r"},
        {"type": "state", "room": "r", "state": []},
        {"type": "ping", "id": "x" * 65},
        {"type": "ack", "cursor": 3},
        {"type": "greet"},
    ],
    ids=str,
)
def test_schema_accepts_what_the_server_accepts(frame, validate_command):
    try:
        commands.decode(json.dumps(frame))
    except commands.InvalidCommand:
        with pytest.raises(fastjsonschema.JsonSchemaValueException):
            validate_command(frame)
    else:
        validate_command(frame)


WINDOW = {"subscription": "w", "window": {"limit": 1, "order": ["-title"]}}
AGGREGATE = {"subscription": "a", "aggregate": {"count": True, "group_by": ["status"]}}
REQUESTS = [
    {"type": "ping", "id": "p"},
    {"type": "subscribe", "collection": "posts", "snapshot": True},
    {"type": "subscribe", "collection": "posts", **WINDOW},
    {"type": "subscribe", "collection": "posts", **AGGREGATE},
    {"type": "subscribe", "collection": "posts", "subscription": "s", "since": "?"},
    {"type": "subscribe", "collection": "nothing", "id": 3},
    {"type": "join", "room": "r", "state": {"typing": True}, "since": "?"},
    {"type": "state", "room": "r", "state": {}, "id": 4},
    {"type": "broadcast", "room": "r", "message": [1], "id": 5},
]
REPLIES = {"pong", "subscribed", "snapshot", "window", "aggregate", "error", "joined", "state"}


@pytest.mark.parametrize("batch", [False, True])
async def test_frames_of_a_connection_are_valid(realtime, user, validate_frame, batch):
    """A conversation with every reply and most frames; the keys of others are tested above."""
    await Post.objects.acreate(title="a", status="draft")

    async with realtime(user=user, authenticate=False) as client:

        async def read(types):
            """Validate all frames until one of each type has come."""
            missing = set(types)
            while missing:
                frame = await client.receive()
                validate_frame(frame)
                missing.discard(frame["type"])

        await client.send({"type": "auth", "id": 1, "batch": batch})
        await read({"authenticated"})
        for request in REQUESTS:
            await client.send(request)
        await read(REPLIES | {"sent", "event"})
        await Post.objects.abulk_create([Post(title=title) for title in "bcd"])
        await read({"events"} if batch else {"event", "window"})
        await sync_to_async(send_to_user)(user, {"text": "hi"})
        await read({"event"})
        await client.send({"type": "leave", "room": "r", "id": 6})
        await client.send({"type": "unsubscribe", "collection": "posts", "id": 7})
        await read({"left", "unsubscribed"})
        await client.send({"type": "auth", "token": "wrong"})
        await read({"error"})

"""Write docs/reference/asyncapi.json, the AsyncAPI 3 document of the native dialect.

The schemas come from the types of the commands and frames, and the descriptions and examples from
the tables and blocks of docs/reference/protocol.md. `make asyncapi` runs it.
"""

import json
import re
import sys
from collections import defaultdict
from functools import partial
from pathlib import Path

import msgspec

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from django_cocobase_realtime.wire import commands, frame_types  # noqa: E402
from django_cocobase_realtime.wire.frames import PROTOCOL  # noqa: E402

PAGE = ROOT / "docs" / "reference" / "protocol.md"
TARGET = ROOT / "docs" / "reference" / "asyncapi.json"
CHANNEL = "#/channels/realtime"
SCHEMAS = "#/components/schemas/"
COMMANDS = list(commands.COMMAND_TYPES.values())
KEYS, KEYS_WITH_DEFAULTS = "| key | type | meaning |", "| key | type | default |"
# the table with the keys of a type: the heading of its section, and the beginning of its header
TABLES = {
    **{cls.__name__: (tag, KEYS_WITH_DEFAULTS) for tag, cls in commands.COMMAND_TYPES.items()},
    "Window": ("Windows", "| key of `window` |"),
    "Aggregate": ("Aggregates", "| key of `aggregate` |"),
    "Authenticated": ("auth", KEYS),
    "Limits": ("Limits of a connection", "| limit |"),
    "Subscribed": ("subscribe", KEYS),
    "Joined": ("join", KEYS),
    "Members": ("Members", KEYS),
    "DocumentEvent": ("Changes of documents", KEYS),
    "BroadcastEvent": ("Broadcasts and messages", KEYS),
    "DirectEvent": ("Broadcasts and messages", KEYS),
    "Presence": ("Presence", KEYS),
    "SnapshotPage": ("Snapshot", KEYS),
    "Cursor": ("Cursor", KEYS),
    "Moved": ("Moved", KEYS),
    "ResyncRequest": ("Resync", KEYS),
    "WindowChange": ("Window", KEYS),
    "AggregateChange": ("Aggregate", KEYS),
    "Group": ("Aggregate", "| key of a group |"),
    "Error": ("Errors", KEYS),
    "Closing": ("Close codes", KEYS),
}
# types of values that are listed with their meaning
CODES = {
    "ErrorCode": ("Error codes", "| code |"),
    "CloseCode": ("Close codes", "| code |"),
    "ResyncReason": ("Reasons for a resync", "| reason |"),
}
# types of the frames that may be in a batch
BATCHED = ("DocumentEvent", "BroadcastEvent", "DirectEvent", "WindowChange", "AggregateChange")

DESCRIPTION = """\
The native dialect of django-cocobase-realtime: changes of documents, live queries and rooms over \
one WebSocket. A message is one JSON object in a text frame; receivers ignore unknown keys, unless \
a schema forbids them. The first request of a connection is `auth`, with an API key, a token, or \
nothing to use the Django session. A request may have an `id`, which its reply or error repeats. \
The order of frames and the guarantees are described in the documentation of the package, on the \
page "Protocol"."""


def plain(text):
    """Return the text of a cell of a table, without the targets of links."""
    return re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", text)


def meanings(title, header):
    """Return the last cell of each row of a table by the names in the first."""
    page = PAGE.read_text()
    heading = re.search(rf"^(##+) {re.escape(title)}\n", page, re.M)
    end = rf"^#{{2,{len(heading[1])}}} "
    section = re.split(end, page[heading.end() :], maxsplit=1, flags=re.M)[0]
    tables = re.findall(r"(?:^\|.*\n)+", section, re.M)
    rows = [table.splitlines()[2:] for table in tables if table.startswith(header)]
    cells = [line.strip("| ").split(" | ") for line in (rows[0] if rows else ())]
    return {
        name.strip("` "): plain(row[-1]) for row in cells for name in row[0].strip().split(", ")
    }


def examples():
    """Return the frames in the examples of the page by the names of their types."""
    decoder = json.JSONDecoder()
    result = defaultdict(list)
    for block in re.findall(r"^```json\n(.*?)^```$", PAGE.read_text(), re.M | re.S):
        rest = block.strip()
        while rest:  # one or several frames
            frame, end = decoder.raw_decode(rest)
            rest = rest[end:].strip()
            result[type_name(frame)].append(frame)
    return result


def type_name(frame):
    """Return the name of the type of a frame."""
    kind = frame["type"]
    if kind in commands.COMMAND_TYPES:
        return commands.COMMAND_TYPES[kind].__name__
    if kind == "event" and frame["event"] in ("broadcast", "direct"):
        return f"{frame['event'].title()}Event"
    return next(cls.__name__ for cls in frame_types.FRAME_TYPES if tag_of(cls) == kind)


def tag_of(cls):
    """Return the `type` of the frames of a class."""
    return cls.__struct_config__.tag


def draft_07(value):
    """Return a schema of msgspec, which are in JSON Schema 2020-12, in draft 07 as AsyncAPI's."""
    if isinstance(value, list):
        return [draft_07(part) for part in value]
    if not isinstance(value, dict):
        return value
    schema = {key: draft_07(part) for key, part in value.items()}
    if "prefixItems" in schema:
        schema["additionalItems"] = schema["items"]
        schema["items"] = schema.pop("prefixItems")
    return schema


def describe(property, text):
    """Return the schema of a key with a description."""
    if "$ref" in property:  # the keywords next to a reference are ignored
        return {"allOf": [property], "description": text}
    return {**property, "description": text}


def make_schemas():
    """Return the schemas of all types by their names."""
    _, schemas = msgspec.json.schema_components(
        [*COMMANDS, *frame_types.FRAME_TYPES], ref_template=SCHEMAS + "{name}"
    )
    for name, (title, header) in TABLES.items():
        texts = meanings(title, header)
        properties = schemas[name]["properties"]
        for key in properties.keys() & texts.keys():
            properties[key] = describe(properties[key], texts[key])
    for name, (title, header) in CODES.items():
        texts = meanings(title, header)
        schemas[name]["description"] = "\n".join(
            f"- `{value}`: {texts[str(value)]}" for value in schemas[name]["enum"]
        )
    schemas["Events"]["properties"]["events"]["items"] = {
        "anyOf": [{"$ref": SCHEMAS + name} for name in BATCHED]
    }
    return {name: draft_07(schema) for name, schema in sorted(schemas.items())}


def make_messages():
    """Return the messages by the names of their types, and the references to them."""
    payloads = examples()
    messages = {}
    for cls in (*COMMANDS, *frame_types.FRAME_TYPES):
        name = cls.__name__
        messages[name] = {
            "name": tag_of(cls),
            "title": name,
            "summary": cls.__doc__.splitlines()[0].rstrip("."),
            "payload": {"$ref": SCHEMAS + name},
        }
        if name in payloads:
            messages[name]["examples"] = [{"payload": payload} for payload in payloads[name]]
    return messages


def reference(path, name):
    """Return a reference to a part of the document."""
    return {"$ref": f"#/{path}/{name}"}


def make_operations():
    """Return the operations, from the server's point of view.

    The server receives each request, and replies or sends an error. It sends everything else.
    """
    channel, message = {"$ref": CHANNEL}, partial(reference, "channels/realtime/messages")
    operations = {}
    replies = set()
    for tag, cls in commands.COMMAND_TYPES.items():
        operation = {
            "action": "receive",
            "channel": channel,
            "summary": cls.__doc__.splitlines()[0].rstrip("."),
            "messages": [message(cls.__name__)],
        }
        answers = ["Error"]
        if (reply := frame_types.REPLIES.get(tag)) is not None:
            answers.insert(0, reply.__name__)
            replies.add(reply)
        operation["reply"] = {"channel": channel, "messages": [message(name) for name in answers]}
        operations[tag] = operation
    events = [cls for cls in frame_types.FRAME_TYPES if cls not in replies]
    operations["sendEvents"] = {
        "action": "send",
        "channel": channel,
        "summary": "Send what happens, without a request",
        "messages": [message(cls.__name__) for cls in events],
    }
    return operations


def make_document():
    """Return the AsyncAPI document."""
    messages = make_messages()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "django-cocobase-realtime",
            "version": str(PROTOCOL),
            "description": DESCRIPTION,
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "site": {
                "host": "{host}",
                "protocol": "wss",
                "description": "The site; without TLS, the protocol is ws.",
                "variables": {
                    "host": {"default": "localhost:8000", "description": "Host and port."}
                },
            }
        },
        "channels": {
            "realtime": {
                "address": "/realtime",
                "title": "Connection",
                "description": "One WebSocket. The path may end with a slash, and the prefix is "
                "the argument of `realtime_application`.",
                "messages": {name: reference("components/messages", name) for name in messages},
                "bindings": {"ws": {"method": "GET"}},
            }
        },
        "operations": make_operations(),
        "components": {"messages": messages, "schemas": make_schemas()},
    }


def make_text():
    """Return the document as the text of the file."""
    return json.dumps(make_document(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(make_text())

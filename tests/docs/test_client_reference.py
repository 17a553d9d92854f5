"""The reference of the clients documents all their public names."""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from django_cocobase_realtime import client
from django_cocobase_realtime.client import (
    Count,
    Document,
    Event,
    Group,
    Live,
    Message,
    Presence,
    Realtime,
    RealtimeError,
    Room,
    Watch,
)
from tests.clients.drivers import STATIC
from tests.docs.test_reference import section

OBJECTS = (Realtime, Watch, Live, Count, Room)
BASE = {"self", "collection", "name", "equal", "url"}


def documented_words(title):
    return words(section("clients.md", title))


def test_public_names_of_python_client_are_documented():
    documented = documented_words("Python")
    assert set(client.__all__) <= documented
    for owner in OBJECTS:
        assert methods(owner) <= documented, owner.__name__


@pytest.mark.parametrize(
    "method",
    [Realtime.__init__, Realtime.watch, Realtime.live, Realtime.count, Realtime.room],
)
def test_options_of_python_client_are_documented(method):
    assert set(inspect.signature(method).parameters) - BASE <= documented_words("Python")


@pytest.mark.parametrize("value", [Event, Document, Group, Message, Presence])
def test_attributes_of_python_values_are_documented(value):
    names = {field.name for field in dataclasses.fields(value)}
    assert names <= words(row_of("Values", value.__name__))


def test_attributes_of_python_errors_are_documented():
    error = RealtimeError("closed", "")
    names = {name for name in dir(error) if not name.startswith("_")} - set(dir(Exception))
    assert names - {"from_frame"} <= words(row_of("Values", "RealtimeError"))


def test_attributes_of_python_objects_are_documented():
    documented = documented_words("Python")
    for owner in OBJECTS:
        assert attributes(owner) <= documented, owner.__name__


def test_blocking_client_has_the_members_of_the_other():
    for owner in OBJECTS:
        blocking = set(dir(getattr(client.sync, owner.__name__)))
        assert methods(owner) <= blocking | set(vars(client.sync.Items)), owner.__name__
        assert attributes(owner) - {"url"} <= blocking, owner.__name__
    assert "get" in documented_words("realtime.sync")


def test_codes_that_the_clients_set_are_documented():
    script = (STATIC / "realtime.js").read_text()
    found = set(re.findall(r'\bcode(?:: | = )"(\w+)"', script))
    found |= set(re.findall(r'thrown\("\w+", [^()]+, "(\w+)"\)', script))
    for source in Path(client.__file__).parent.glob("*.py"):
        pattern = r'(?:RealtimeError\(|InvalidRequest\(|\bcode =|\bcode, message =)\s*"(\w+)"'
        found |= set(re.findall(pattern, source.read_text()))
    # the declarations name those of the JavaScript client
    types = (STATIC / "realtime.d.ts").read_text()
    comment = re.search(r"a code of the client: (.*?)\*/", types, re.S)[1]
    found |= set(re.findall(r"`(\w+)`", comment))
    assert found >= {"closed", "not_connected", "not_refreshed", "bad_frame", "upgrade_required"}
    assert found <= words(section("clients.md", "Errors")) | words(
        row_of("Values", "InvalidRequest")
    )


def test_public_names_of_javascript_client_are_documented():
    types = (STATIC / "realtime.d.ts").read_text()
    documented = documented_words("JavaScript") | {"type", "name"}
    owners = "Options WatchOptions SubscriptionOptions LiveOptions Live Store RoomOptions Room Stop"
    for owner in owners.split():
        for name in members(types, "interface", owner):
            assert name in documented, f"{owner}.{name}"
    for owner in ("Realtime", "RealtimeError"):
        for name in members(types, "class", owner):
            assert name in documented | {"constructor"}, name


def test_events_and_values_of_javascript_client_are_documented():
    types = (STATIC / "realtime.d.ts").read_text()
    documented = documented_words("JavaScript")
    for name in re.findall(r'\bon\(\s*name: "(\w+)"', types):
        assert name in documented, name
    for name in ("status", "source"):
        pattern = rf"(?:type {name} =|readonly {name}:)([^;]*);"
        for value in re.findall(r'"(\w+)"', re.search(pattern, types, re.I)[1]):
            assert value in documented, value
    detail = re.search(r'name: "status",\s*fn: \(change: \{(.*?)\n    \}\)', types, re.S)[1]
    assert set(re.findall(r"^      (\w+)\??:", detail, re.M)) <= documented


def methods(owner):
    """Return the public methods and properties of a class and of those that it inherits from."""
    classes = [each for each in owner.__mro__ if each.__module__.startswith(client.__name__)]
    names = {name for each in classes for name in vars(each)}
    return {name for name in names if not re.match("_|on_|handle_|(end|join)$", name)}


def attributes(owner):
    classes = [each for each in owner.__mro__ if each.__module__.startswith(client.__name__)]
    source = "".join(map(inspect.getsource, classes))
    return set(re.findall(r"self\.([a-z]\w*)(?:: [^=\n]+)? = ", source))


def members(types, kind, owner):
    body = re.search(
        rf"{kind} {owner}\b[^\n{{]*(?:\{{ \[[^\n]*|\n  [^\n]*)?\{{\n(.*?)\n\}}", types, re.S
    )[1]
    found = re.findall(r"^  (?:readonly )?(\w+)[?(:<]", body, re.M)
    assert found, owner
    return found


def words(text):
    return set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", text))))


def row_of(title, name):
    (row,) = re.findall(rf"^\| `{name}` \|.*$", section("clients.md", title), re.M)
    return row


def test_typescript_declarations_match_the_module():
    types, module = ((STATIC / name).read_text() for name in ("realtime.d.ts", "realtime.js"))
    for name in re.findall(r"export class (\w+)", types):
        assert f"export class {name}" in module
    body = re.search(r"export class Realtime\b[^\n]* \{\n(.*?)\n\}", types, re.S)[1]
    for name in re.findall(r"^  (\w+)[(<]", body, re.M):
        assert re.search(rf"^  {name}\(", module, re.M), name

"""The reference of the clients documents all their public names."""

import inspect
import re

import pytest

from django_cocobase_realtime import client
from django_cocobase_realtime.client import Live, Realtime, Room, Watch
from tests.clients.drivers import STATIC
from tests.docs.test_reference import section

BASE = {"self", "collection", "name", "equal", "url"}


def documented_words(title):
    return set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", section("clients.md", title)))))


def test_public_names_of_python_client_are_documented():
    documented = documented_words("Python")
    assert set(client.__all__) <= documented
    for owner in (Realtime, Watch, Live, Room):
        for name in vars(owner):
            if name.startswith("_"):
                continue
            if name not in {"end", "join"} and not name.startswith(("on_", "handle_")):
                assert name in documented, f"{owner.__name__}.{name}"


@pytest.mark.parametrize(
    "method", [Realtime.__init__, Realtime.watch, Realtime.live, Realtime.room]
)
def test_options_of_python_client_are_documented(method):
    assert set(inspect.signature(method).parameters) - BASE <= documented_words("Python")


def test_public_names_of_javascript_client_are_documented():
    types = (STATIC / "realtime.d.ts").read_text()
    documented = documented_words("JavaScript") | {"type"}
    for owner in ("Options", "WatchOptions", "LiveOptions", "Live", "RoomOptions", "Room", "Stop"):
        body = re.search(rf"interface {owner}\b[^{{]*\{{\n(.*?)\n\}}", types, re.S)[1]
        for name in re.findall(r"^  (?:readonly )?(\w+)[?(:<]", body, re.M):
            assert name in documented | {"name"}, f"{owner}.{name}"
    body = re.search(r"export class Realtime\b[^\n]* \{\n(.*?)\n\}", types, re.S)[1]
    for name in re.findall(r"^  (?:readonly )?(\w+)[?(:<]", body, re.M):
        assert name in documented | {"constructor"}, name


def test_typescript_declarations_match_the_module():
    types, module = ((STATIC / name).read_text() for name in ("realtime.d.ts", "realtime.js"))
    for name in re.findall(r"export class (\w+)", types):
        assert f"export class {name}" in module
    body = re.search(r"export class Realtime\b[^\n]* \{\n(.*?)\n\}", types, re.S)[1]
    for name in re.findall(r"^  (\w+)[(<]", body, re.M):
        assert re.search(rf"^  {name}\(", module, re.M), name

"""The reference of the Python names has the signatures and methods that the code has."""

import inspect
import re
from dataclasses import fields

import pytest
from django.dispatch import Signal

import django_cocobase_realtime
from django_cocobase_realtime import permissions, routing, signals, testing
from django_cocobase_realtime.auth.base import Authenticator
from django_cocobase_realtime.declarations.room import PERMISSION_METHODS
from django_cocobase_realtime.identity import Identity
from django_cocobase_realtime.inspection import records
from django_cocobase_realtime.operations import RealtimeTriggers
from django_cocobase_realtime.presence.base import PresenceBackend
from tests.docs.test_reference import DOCS, rows, section

TEXT = (DOCS / "reference" / "python.md").read_text()
FUNCTIONS = [
    *(getattr(django_cocobase_realtime, name) for name in django_cocobase_realtime.__all__),
    routing.realtime_application,
    routing.websocket_urlpatterns,
    permissions.owned_by,
    RealtimeTriggers,
    PresenceBackend,
    testing.connect,
    testing.capture_events,
    testing.LossyChannelLayer,
]


def parameters_of(function):
    return {
        parameter.name: parameter.default
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is not parameter.VAR_KEYWORD
    }


def documented_parameters(name):
    """Return the parameters of a documented function, with their defaults."""
    (call,) = re.findall(rf"^`(?:[\w.]+\.)?({name}\(.*\))`$", TEXT, re.M)
    namespace = {}
    exec(f"def {call}: ...", namespace)
    return parameters_of(namespace[name])


def public_methods(cls):
    return {name for name, _ in inspect.getmembers(cls, callable) if not name.startswith("_")}


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_documented_signatures_are_those_of_the_code(function):
    name = function.__name__
    if name in ("Collection", "Room"):
        assert f"\n`{name}`\n" in TEXT
    else:
        assert documented_parameters(name) == parameters_of(function)


@pytest.mark.parametrize(
    ("title", "methods"),
    [
        ("Rooms", {*PERMISSION_METHODS, "get_title"}),
        ("Permissions", public_methods(permissions.Permission) | {"has_object_permission"}),
        ("Authenticators", public_methods(Authenticator)),
        ("Presence backends", public_methods(PresenceBackend)),
        ("Testing", public_methods(testing.RealtimeClient)),
    ],
)
def test_methods_are_documented(title, methods):
    documented = re.findall(r"^ *\| `(?:await )?(\w+)\(", section("python.md", title), re.M)
    assert set(documented) == methods


def test_permission_classes_are_documented():
    classes = inspect.getmembers(permissions, inspect.isclass)
    own = {name for name, cls in classes if cls.__module__ == permissions.__name__}
    text = section("python.md", "Permissions")
    assert {name for name in own if f"`{name}`" not in text} == {"Combinable", "Combination"}


def test_attributes_of_identities_are_documented():
    attributes = {name for name in dir(Identity) if not name.startswith("_")}
    text = section("python.md", "Identities")
    assert {name for name in attributes if f"`{name}" not in text} == set()


def test_signals_are_documented():
    names = [name for name, value in vars(signals).items() if isinstance(value, Signal)]
    assert [row[0] for row in rows("python.md", "Signals")] == names


@pytest.mark.parametrize(
    "cls",
    [records.ConnectionInfo, records.SubscriptionInfo, records.StreamInfo, records.RoomInfo],
)
def test_attributes_of_inspected_objects_are_documented(cls):
    header = f"| attribute of `{cls.__name__}` | type | meaning |"
    documented = [row[0] for row in rows("python.md", "Inspection", header)]
    assert documented == [field.name for field in fields(cls)]

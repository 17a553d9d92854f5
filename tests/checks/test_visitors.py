"""System checks of what is declared as public (W066 to W069)."""

import pytest

from django_cocobase_realtime.checks import check_settings
from django_cocobase_realtime.permissions import (
    AllowAny,
    HasCredential,
    IsAuthenticated,
    Permission,
)
from tests.support.permissions import Published

VISITORS = ["django_cocobase_realtime.auth.anonymous.Anonymous"]
POSTS = {"model": "app.Post", "fields": ["title"], "public": True}


class Titles(Permission):
    def fields_for(self, identity):
        return ["title"]


class Anyone(HasCredential):
    def can_subscribe(self, identity, filters):
        return True


Both = Published & IsAuthenticated
Either = Published | IsAuthenticated
AllPublished = AllowAny & Published


@pytest.mark.parametrize(
    ("options", "more", "id"),
    [
        ({}, {}, "W066"),
        ({"public": False}, {"ROOMS": {"lobby": {"public": True}}}, "W066"),
        ({"public": False}, {"ROOMS": {"lobby": {}}}, None),
        ({"public": False, "permission": "AllowAny"}, {}, "W067"),
        ({"public": False, "permission": "AllPublished"}, {}, "W067"),
        ({"public": False, "permission": "Published"}, {}, None),
        ({"permission": "AllPublished"}, {"AUTHENTICATORS": VISITORS}, None),
        ({"permission": "IsAuthenticated"}, {"AUTHENTICATORS": VISITORS}, "W068"),
        ({"permission": "Both"}, {"AUTHENTICATORS": VISITORS}, "W068"),
        ({"permission": "Either"}, {"AUTHENTICATORS": VISITORS}, None),
        ({"permission": "Anyone"}, {"AUTHENTICATORS": VISITORS}, None),
        ({"fields": None}, {"AUTHENTICATORS": VISITORS}, "W069"),
        ({"fields": None, "permission": "Titles"}, {"AUTHENTICATORS": VISITORS}, None),
        ({"public": "yes"}, {}, "E004"),
        ({"public": False}, {"ROOMS": {"lobby": {"public": 1}}}, "E091"),
    ],
)
def test_mistake_in_what_is_public_is_reported_by_its_check(settings, options, more, id):
    settings.DEBUG = True
    options = {**POSTS, **options}
    if "permission" in options:
        options["permission"] = f"{__name__}.{options['permission']}"
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": options}, **more}
    messages = [message.id.removeprefix("cocobase_realtime.") for message in check_settings()]
    assert messages == ([] if id is None else [id])

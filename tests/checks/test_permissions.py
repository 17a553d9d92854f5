"""System check of permissions that look at the clock (W055)."""

import time
from datetime import datetime

import pytest
from django.utils import timezone

from django_cocobase_realtime.checks import check_settings
from django_cocobase_realtime.permissions import IsAuthenticated, Permission
from tests.support.permissions import Published


class Scheduled(Permission):
    def visible_to(self, identity):
        return {"created_at": {"lte": timezone.now()}}


class Nested(Permission):
    def visible_to(self, identity):
        return {key: [f() for f in (lambda: datetime.today(),)] for key in ("created_at",)}


class Numbered(Permission):
    def visible_to(self, identity):
        return {"meta.until_gt": time.time()}


class NamedTime(Permission):
    def visible_to(self, identity):
        return {"meta.until_gt": identity.user.time}


CanRead = IsAuthenticated & (Published | ~Scheduled)


@pytest.mark.parametrize(
    ("permission", "named"),
    [
        ("Scheduled", "Scheduled.visible_to calls now"),
        ("Nested", "Nested.visible_to calls today"),
        ("Numbered", "Numbered.visible_to calls time"),
        ("CanRead", "Scheduled.visible_to calls now"),
        ("NamedTime", None),
        ("Published", None),
    ],
)
def test_permission_that_looks_at_the_clock_is_reported(settings, permission, named):
    settings.DEBUG = True
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": {"model": "app.Post", "permission": f"{__name__}.{permission}"}}
    }
    messages = check_settings()
    assert [m.id for m in messages] == ([] if named is None else ["cocobase_realtime.W055"])
    assert all(named in m.msg and "'posts'" in m.msg for m in messages)

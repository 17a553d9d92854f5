"""Project code that fails at random, or takes long, named by its paths in settings.

Each failure has its own number, so that a test can count how often it was logged.
"""

import itertools
import os
import random
import sys
import time

from django_cocobase_realtime.auth.base import Authenticator
from django_cocobase_realtime.identity import Identity
from django_cocobase_realtime.permissions import Permission

SHARE = 0.25  # of the calls that fail
SECONDS = float(os.environ.get("SLOW_SECONDS", "1"))  # that slow code takes
_numbers = itertools.count()
_random = random.Random(5)


class ProjectError(Exception):
    """An error of the project's code. Its text is unique."""


def maybe_fail():
    if _random.random() < SHARE:
        raise ProjectError(f"failure-{next(_numbers)}")


class FailsAtRandom(Permission):
    def can_subscribe(self, identity, filters):
        maybe_fail()
        return True

    def visible_to(self, identity):
        maybe_fail()
        return {"project": "default"}

    def fields_for(self, identity):
        maybe_fail()
        return ["title", "status", "views"]


class RowFailsAtRandom(Permission):
    def has_object_permission(self, identity, row):
        maybe_fail()
        return True


class Denied(Permission):
    def can_subscribe(self, identity, filters):
        return False


class RoomFailsAtRandom:
    def can_join(self, identity, room):
        maybe_fail()
        return True

    def can_broadcast(self, identity, room):
        maybe_fail()
        return True

    def can_see_members(self, identity, room):
        maybe_fail()
        return True


def serialize(post):
    maybe_fail()
    return {"title": post.title}


class FlakyAuthenticator(Authenticator):
    """Accept the token "flaky", sometimes."""

    kind = "flaky"

    def authenticate(self, token, scope):
        if token != "flaky":
            return None
        maybe_fail()
        return Identity(credential="flaky:1")


def report_call(name):
    """Write to the server's log that a slow function was called."""
    print(f"called {name}", file=sys.stderr, flush=True)


class Slow(Permission):
    def can_subscribe(self, identity, filters):
        report_call("permission")
        time.sleep(SECONDS)
        return True


class SlowRoom:
    def can_join(self, identity, room):
        report_call("room")
        time.sleep(SECONDS)
        return True


class SlowRow(Permission):
    def has_object_permission(self, identity, row):
        report_call("row")
        time.sleep(0.02)
        return False


class SlowAuthenticator(Authenticator):
    """Take a while for each token that begins with "slow", and refuse it."""

    kind = "slow"

    def authenticate(self, token, scope):
        if token is not None and token.startswith("slow"):
            report_call("authenticator")
            time.sleep(SECONDS)
        return

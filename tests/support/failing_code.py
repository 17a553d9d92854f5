"""Permissions, rooms, authenticators and a serializer that raise, named by their paths."""

import threading
import time

from django.db import OperationalError, ProgrammingError, connection

from django_cocobase_realtime.auth.backends import AuthenticationUnavailable
from django_cocobase_realtime.auth.base import Authenticator
from django_cocobase_realtime.identity import Identity
from django_cocobase_realtime.permissions import Permission


class Failure:
    """Which method raises now, and what."""

    method = None
    error = None
    # number of calls of the method that raised
    count = 0

    @classmethod
    def reset(cls):
        cls.method, cls.error, cls.count = None, None, 0

    @classmethod
    def of(cls, method, error=None):
        cls.method, cls.error = method, error or RuntimeError("secret details")

    @classmethod
    def check(cls, method):
        if cls.method == method:
            cls.count += 1
            if cls.error == "query":
                with connection.cursor() as cursor:
                    cursor.execute("SELECT nothing FROM no_such_table")
            raise cls.error


class FailingPermission(Permission):
    def __init__(self):
        Failure.check("__init__")

    def can_subscribe(self, identity, filters):
        Failure.check("can_subscribe")
        return True

    def visible_to(self, identity):
        Failure.check("visible_to")
        return {"nonsense": 1} if Failure.method == "nonsense" else True

    def fields_for(self, identity):
        Failure.check("fields_for")
        return


class FailingCheck(Permission):
    def has_object_permission(self, identity, instance):
        Failure.check("has_object_permission")
        return True


HiddenByFailingCheck = ~FailingCheck


class AsyncPermission(Permission):
    async def can_subscribe(self, identity, filters):
        return False


class FailingRoom:
    def can_join(self, identity, room):
        Failure.check("can_join")
        return True

    def can_broadcast(self, identity, room):
        Failure.check("can_broadcast")
        return True

    def can_see_members(self, identity, room):
        Failure.check("can_see_members")
        return True


class AsyncRoom:
    async def can_join(self, identity, room):
        return False


def serialize(instance):
    Failure.check("serialize")
    return {"title": instance.title}


class TestAuthenticator(Authenticator):
    """Accepts, refuses or raises, depending on the token."""

    __test__ = False
    kind = "test"
    # seconds that it takes for the token "slow"
    seconds = 1.0
    # set when the token "blocked" may be answered
    release = threading.Event()

    def authenticate(self, token, scope):
        match token:
            case "bug":
                raise RuntimeError(f"secret {token}")
            case "down":
                raise OperationalError("The database is away.")
            case "keys":
                raise AuthenticationUnavailable("The key server is away.")
            case "slow":
                time.sleep(self.seconds)
            case "slow down":
                time.sleep(self.seconds)
                raise OperationalError("The database is away.")
            case "blocked":
                self.release.wait(10)
            case "wrong":
                return None
        return Identity(f"test:{token}", user_id=1, name="ada")

    def revoked(self, identities):
        Failure.check("revoked")
        return set()


AUTHENTICATOR = f"{__name__}.TestAuthenticator"
PROGRAMMING_ERROR = ProgrammingError("relation does not exist")
OPERATIONAL_ERROR = OperationalError("The database is away.")


class FailingAuthenticator(Authenticator):
    """Raises for every token."""

    kind = "failing"

    def authenticate(self, token, scope):
        raise RuntimeError(f"secret {token}")

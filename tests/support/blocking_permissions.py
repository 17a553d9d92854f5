"""Permissions that the tests of leaks name by their paths: some wait while rights change."""

import threading

from django_cocobase_realtime.permissions import Permission


class Gate:
    """Answers as it stood when it was asked, but only once it is let go."""

    open = True
    waits = False
    entered = threading.Event()
    go = threading.Event()

    @classmethod
    def close(cls):
        cls.open, cls.waits = True, True
        cls.entered.clear()
        cls.go.clear()

    @classmethod
    def answer(cls):
        answer, waits = cls.open, cls.waits
        if waits:
            cls.waits = False
            cls.entered.set()
            cls.go.wait(5)
        return answer


class SlowRows(Permission):
    def has_object_permission(self, identity, post):
        return Gate.answer()


class SlowDoor:
    def can_join(self, identity, room):
        return Gate.answer()


def short(post):
    """A serializer."""
    return {"title": post.title}


class Nobody:
    def can_join(self, identity, room):
        return False


class Blind:
    def can_see_members(self, identity, room):
        return False

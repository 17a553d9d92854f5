"""Permissions that wait for the test before they answer, and a serializer, named by their paths."""

import threading

from django_cocobase_realtime.permissions import Permission


class Gate:
    """The answer of the permissions below.

    After ``block_next`` the next answer is the one of the moment when it was asked for, but it
    is returned only when ``release`` is set.
    """

    allows = True
    blocks = False
    entered = threading.Event()
    release = threading.Event()

    @classmethod
    def block_next(cls):
        cls.allows, cls.blocks = True, True
        cls.entered.clear()
        cls.release.clear()

    @classmethod
    def answer(cls):
        answer, blocks = cls.allows, cls.blocks
        if blocks:
            cls.blocks = False
            cls.entered.set()
            cls.release.wait(5)
        return answer


class BlockingRowPermission(Permission):
    def has_object_permission(self, identity, post):
        return Gate.answer()


class BlockingRoomPermission:
    def can_join(self, identity, room):
        return Gate.answer()


def serialize_title(post):
    return {"title": post.title}


class JoinForbidden:
    def can_join(self, identity, room):
        return False


class MembersHidden:
    def can_see_members(self, identity, room):
        return False

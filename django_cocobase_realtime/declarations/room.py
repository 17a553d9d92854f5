"""What a project declares of rooms: who may do what in rooms of which names, and what they keep.

Where nothing is declared, every authenticated identity may use every room of its project. As soon
as a project declares one pattern, names that match none are refused: add ``"*"`` for the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import translate
from functools import cached_property, lru_cache
from typing import Any, ClassVar, TypeVar

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ..conf import conf
from ..identity import Identity

OPTIONS = ("permission", "history", "durable", "title")
PERMISSION_METHODS = ("can_join", "can_broadcast", "can_see_members")
DURABLE_HISTORY = 1000  # broadcasts that a durable room keeps unless it says otherwise


@dataclass(frozen=True, slots=True)
class RoomGrant:
    """What one identity may do in a room that it may join."""

    room: Room
    can_broadcast: bool = True
    can_see_members: bool = True


class Room:
    """Rooms whose names match a pattern. Subclass and ``@register_room("chat-*")`` it.

    ``permission``: a class with `can_join`, `can_broadcast`, `can_see_members` or some of them,
    instead of methods here, or its dotted path. ``history``: how many broadcasts each room keeps
    for those who join later. ``durable``: a broadcast that the channel layer loses is read from
    what the room keeps (1000 unless ``history`` says otherwise). ``title``: what people see, None
    for the room's name.

    The methods are ordinary synchronous code, may use the ORM, and run when somebody joins.
    """

    pattern: ClassVar[str] = "*"
    permission: ClassVar[type[Any] | str | None] = None
    history: ClassVar[int] = 0
    durable: ClassVar[bool] = False
    title: ClassVar[str | None] = None

    def can_join(self, identity: Identity, room: str) -> bool:
        """Whether the identity may enter. A refusal does not tell whether anybody is inside."""
        return bool(self._call_permission("can_join", identity, room))

    def can_broadcast(self, identity: Identity, room: str) -> bool:
        """Whether a member may speak, or only listen."""
        return bool(self._call_permission("can_broadcast", identity, room))

    def can_see_members(self, identity: Identity, room: str) -> bool:
        """Whether a member is told who else is there; how many is told anyway."""
        return bool(self._call_permission("can_see_members", identity, room))

    def _call_permission(self, question: str, identity: Identity, room: str) -> Any:
        method = getattr(self._permission, question, None)
        return identity.is_authenticated if method is None else method(identity, room)

    @cached_property
    def _permission(self) -> Any:
        permission = self.permission
        if isinstance(permission, str):
            permission = import_string(permission)
        return permission() if isinstance(permission, type) else permission

    @property
    def history_size(self) -> int:
        """How many broadcasts each room keeps."""
        return self.history or (DURABLE_HISTORY if self.durable else 0)

    @cached_property
    def has_custom_permission(self) -> bool:
        """Whether code of the project's decides; else there is nothing to wait for."""
        overridden = any(
            getattr(type(self), name) is not getattr(Room, name) for name in PERMISSION_METHODS
        )
        return overridden or self.permission is not None

    def grant(self, identity: Identity, room: str) -> RoomGrant | None:
        """Ask; None for a refusal. May use the ORM: not for event loops where ``asks``."""
        if not self.can_join(identity, room):
            return None
        return RoomGrant(
            self, self.can_broadcast(identity, room), self.can_see_members(identity, room)
        )

    def get_title(self, room: str) -> str:
        """What people see, where whoever opened the room gave it no title."""
        return self.title or room


R = TypeVar("R", bound=type[Room])


class RoomRegistry:
    """Declared rooms: those of settings in their order, then those registered as classes."""

    def __init__(self) -> None:
        self._classes: dict[str, type[Room]] = {}
        self._resolved: dict[str, Room] | None = None
        self._declared: Any = None
        self._find = lru_cache(maxsize=4096)(self._match)

    def register(self, pattern: str, cls: type[Room]) -> None:
        """Add a class. Raises ``ImproperlyConfigured`` where the pattern is taken by another."""
        if not (isinstance(cls, type) and issubclass(cls, Room)):
            raise ImproperlyConfigured(f"Rooms {pattern!r} must be a subclass of Room.")
        if self._classes.get(pattern, cls) is not cls:
            raise ImproperlyConfigured(f"Two classes are registered for rooms {pattern!r}.")
        self._classes[pattern] = cls
        self.clear_cache()

    def unregister(self, pattern: str) -> None:
        """Take a class out again; nothing where it was not there."""
        self._classes.pop(pattern, None)
        self.clear_cache()

    @property
    def registered(self) -> dict[str, type[Room]]:
        """Registered classes by pattern."""
        return dict(self._classes)

    def clear_cache(self) -> None:
        """Resolve again at the next look."""
        self._resolved = None
        self._find.cache_clear()

    def _rooms(self) -> dict[str, Room]:
        declared = conf.rooms
        if self._resolved is None or self._declared is not declared:
            found = {pattern: from_settings(pattern, each) for pattern, each in declared.items()}
            for pattern, cls in self._classes.items():
                found.setdefault(pattern, cls())
            self._resolved, self._declared = found, declared
            self._find.cache_clear()
        return self._resolved

    def find(self, name: str) -> Room | None:
        """The declaration of the room of this name: its own, else the first pattern that matches.

        None where rooms are declared, but none of this name.
        """
        self._rooms()
        return self._find(name)

    def _match(self, name: str) -> Room | None:
        rooms = self._rooms()
        if not rooms:
            return Room()
        if name in rooms:
            return rooms[name]
        for pattern, room in rooms.items():
            if re.match(translate(pattern), name):
                return room
        return None

    def patterns(self) -> list[str]:
        """In the order in which they are asked."""
        return list(self._rooms())


def from_settings(pattern: str, declaration: Any) -> Room:
    """Rooms from their entry in ``ROOMS``, a mapping of options.

    Raises ``ImproperlyConfigured`` for anything else.
    """
    if not isinstance(declaration, Mapping):
        raise ImproperlyConfigured(f"Rooms {pattern!r} must be a dictionary of {list(OPTIONS)}.")
    unknown = sorted(set(declaration) - set(OPTIONS))
    if unknown:
        raise ImproperlyConfigured(
            f"Rooms {pattern!r} have unknown options {unknown}; known are {list(OPTIONS)}."
        )
    cls = type("SettingsRoom", (Room,), {**declaration, "pattern": pattern})
    room: Room = cls()
    return room


room_registry = RoomRegistry()


def register_room(pattern: str) -> Callable[[R], R]:
    """Class decorator: declare the rooms whose names match a pattern.

    ``*`` matches anything, ``?`` one character, ``[abc]`` one of these; case counts. Modules named
    ``realtime`` in installed apps are imported at start.
    """

    def decorate(cls: R) -> R:
        room_registry.register(pattern, cls)
        return cls

    return decorate

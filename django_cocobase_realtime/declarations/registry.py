"""Registries of the collections and rooms that a project declares.

Both are declared in one of two ways: as an entry of a setting, or as a class with a decorator in
a module named ``realtime``, which is imported at start.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import translate
from functools import cached_property, lru_cache, partial
from typing import Any, Generic, TypeVar

from django.core.exceptions import ImproperlyConfigured

from ..conf import conf
from .capture_mode import Captured
from .collection import OPTIONS as COLLECTION_OPTIONS
from .collection import Collection
from .dependency_table import DependencyTable, dependency_models, is_hidden, label_of
from .depends_on import followed_paths
from .operations import OPERATIONS_ROOM, OperationsRoom
from .room import OPTIONS as ROOM_OPTIONS
from .room import Room

D = TypeVar("D")
C = TypeVar("C", bound=type[Any])

ROOM_CACHE_SIZE = 4096  # names of rooms for which the declaration is cached


class UnknownCollection(LookupError):
    """There is no collection with this name."""


class Registry(Generic[D]):
    """Declarations of one kind, by name: entries of a setting, then registered classes.

    They are instantiated at first use, because models are not loaded before, and again when the
    setting is replaced.
    """

    def __init__(
        self,
        base: type[D],
        *,
        noun: str,
        name_attribute: str,
        options: Sequence[str],
        get_setting: Callable[[], Mapping[str, Any]],
    ) -> None:
        # the class that all declarations must inherit from
        self._base = base
        # the word for a declaration in error messages
        self._noun = noun
        # the attribute of a declaration that is set to its name
        self._name_attribute = name_attribute
        # the keys that an entry of the setting may have
        self._options = options
        # returns the setting as it is now
        self._get_setting = get_setting
        # registered classes by name
        self._classes: dict[str, type[D]] = {}
        # all declarations by name; None if they must be instantiated again
        self._resolved: dict[str, D] | None = None
        # the setting that `_resolved` was made from, to notice that it was replaced
        self._resolved_from: Mapping[str, Any] | None = None

    def register(self, name: str, cls: type[D]) -> None:
        """Add a class. Raises ``ImproperlyConfigured`` if another class has the name."""
        if not (isinstance(cls, type) and issubclass(cls, self._base)):
            raise ImproperlyConfigured(
                f"{self._noun} {name!r} must be a subclass of {self._base.__name__}."
            )
        if self._classes.get(name, cls) is not cls:
            raise ImproperlyConfigured(f"{self._noun} {name!r}: two classes are registered.")
        self._classes[name] = cls
        self.clear_cache()

    def decorator(self, name: str) -> Callable[[C], C]:
        """Return a class decorator that registers the class under ``name``."""

        def decorate(cls: C) -> C:
            self.register(name, cls)
            return cls

        return decorate

    def unregister(self, name: str) -> None:
        """Remove a class, if one is registered under ``name``."""
        self._classes.pop(name, None)
        self.clear_cache()

    @property
    def registered(self) -> dict[str, type[D]]:
        """Registered classes by name."""
        return dict(self._classes)

    def clear_cache(self) -> None:
        """Instantiate all declarations again at their next use."""
        self._resolved = None

    def from_class(self, name: str, cls: type[D]) -> D:
        """Return an instance of a registered class, with its name set."""
        declaration = cls()
        declaration.__dict__[self._name_attribute] = name
        return declaration

    def from_settings(self, name: str, entry: Any) -> D:
        """Return the declaration for an entry of the setting.

        Raises ``ImproperlyConfigured`` if the entry is malformed.
        """
        attributes = self._read_entry(name, entry)
        unknown = sorted(set(attributes) - set(self._options))
        if unknown:
            raise ImproperlyConfigured(
                f"{self._noun} {name!r}: unknown options {unknown}; "
                f"known are {list(self._options)}."
            )
        return self.from_class(
            name, type(f"Settings{self._base.__name__}", (self._base,), attributes)
        )

    def _read_entry(self, name: str, entry: Any) -> dict[str, Any]:
        """Return an entry of the setting as a dictionary of options."""
        if not isinstance(entry, Mapping):
            raise ImproperlyConfigured(
                f"{self._noun} {name!r} must be a dictionary of {list(self._options)}."
            )
        return dict(entry)

    def _declarations(self) -> dict[str, D]:
        setting, resolved = self._get_setting(), self._resolved
        if resolved is None or self._resolved_from is not setting:
            resolved = {name: self.from_settings(name, entry) for name, entry in setting.items()}
            for name, cls in self._classes.items():
                if name not in resolved:
                    resolved[name] = self.from_class(name, cls)
            self._resolved, self._resolved_from = resolved, setting
        return resolved

    def __iter__(self) -> Iterator[D]:
        return iter(list(self._declarations().values()))


class _Dependencies:
    """The tables that collections depend on, found at first use: models are not loaded before."""

    def __init__(self, declarations: Mapping[str, Collection]) -> None:
        # all collections by name
        self.declarations = declarations

    @cached_property
    def dependents(self) -> list[Collection]:
        """The collections that have dependencies."""
        return [collection for collection in self.declarations.values() if collection.dependencies]

    @cached_property
    def showing_related(self) -> list[Collection]:
        """The collections with a log whose documents show values of related rows."""
        return [
            collection
            for collection in self.declarations.values()
            if collection.durable
            and any(
                path.hops
                for _, path in followed_paths(
                    collection.related_fields, collection.serialized_relations
                )
            )
        ]

    @cached_property
    def tables(self) -> dict[str, DependencyTable]:
        """The tables by label. Triggers log one if they log a collection that depends on it."""
        captures: dict[type[Any], set[str | None]] = {}
        for collection in self.dependents:
            for model in dependency_models(collection.dependencies).values():
                captures.setdefault(model, set()).add(collection.capture)
        return {
            model._meta.label: DependencyTable(
                model, next(mode for mode in ("triggers", None, "signals") if mode in modes)
            )
            for model, modes in captures.items()
        }


class CollectionRegistry(Registry[Collection]):
    """The collections of the project, by the name that clients use."""

    def __init__(self) -> None:
        super().__init__(
            Collection,
            noun="Collection",
            name_attribute="name",
            options=COLLECTION_OPTIONS,
            get_setting=lambda: conf.collections,
        )
        # collections by the former names that they declare, and what they were found in
        self._by_alias: dict[str, Collection] = {}
        self._aliases_of: Mapping[str, Collection] | None = None
        # what the collections depend on; made again when they are declared again
        self._dependencies = _Dependencies({})

    def get(self, name: str) -> Collection:
        """Return the collection of this name, or of this former name.

        Raises `UnknownCollection`.
        """
        declarations = self._declarations()
        collection = declarations.get(name)
        if collection is None:
            if self._aliases_of is not declarations:
                self._by_alias = {
                    alias: declared
                    for declared in reversed(declarations.values())
                    for alias in declared.aliases
                }
                self._aliases_of = declarations
            collection = self._by_alias.get(name)
        if collection is None:
            raise UnknownCollection(name)
        return collection

    def dependents(self, using: str) -> bool:
        """Return whether a collection in a database has dependencies."""
        dependents = self._current_dependencies().dependents
        return any(collection.database == using for collection in dependents)

    def showing_related(self, using: str) -> list[Collection]:
        """Return the collections with a log in a database whose documents show related rows."""
        showing = self._current_dependencies().showing_related
        return [collection for collection in showing if collection.database == using]

    def dependencies(self, using: str) -> list[DependencyTable]:
        """Return the tables that collections in a database depend on."""
        tables = self._current_dependencies().tables.values()
        return [table for table in tables if table.database == using]

    def dependency(self, label: str) -> DependencyTable | None:
        """Return the dependency table of the model with this label, if there is one."""
        return self._current_dependencies().tables.get(label)

    def captured(self) -> list[Captured]:
        """Return all whose changes are logged: collections, and tables that they depend on."""
        return [*self, *self._current_dependencies().tables.values()]

    def named(self, name: str) -> Captured:
        """Return the collection of this name, or else the dependency table with this label.

        Raises `UnknownCollection`.
        """
        try:
            return self.get(name)
        except UnknownCollection:
            if (table := self.dependency(name)) is None:
                raise
            return table

    def with_dependencies(self, collection: Collection) -> list[Captured]:
        """Return a collection and the tables that it depends on."""
        tables = self._current_dependencies().tables
        return [collection, *(tables[label] for label in collection.dependencies)]

    def log_databases(self) -> list[str]:
        """Return the aliases of the databases that have a log, sorted."""
        return sorted({captured.database for captured in self.captured() if captured.durable})

    def logged(self, stream: str, document_id: str) -> Captured:
        """Return what decodes a logged change of a stream with this document id.

        Raises `UnknownCollection`.
        """
        if not is_hidden(stream):
            return self.get(stream)
        table = self.dependency(label_of(document_id)[0])
        if table is None:
            raise UnknownCollection(stream)
        return table

    def _current_dependencies(self) -> _Dependencies:
        declarations, known = self._declarations(), self._dependencies
        if known.declarations is not declarations:
            known = self._dependencies = _Dependencies(declarations)
        return known

    def _read_entry(self, name: str, entry: Any) -> dict[str, Any]:
        if isinstance(entry, str):
            return {"model": entry}
        if not isinstance(entry, Mapping) or "model" not in entry:
            raise ImproperlyConfigured(
                f"Collection {name!r} must be a model label or a dictionary with a 'model'."
            )
        options = dict(entry)
        for name in ("serializer", "queryset"):
            function = options.get(name)
            if callable(function) and not isinstance(function, type):
                options[name] = staticmethod(function)
        return options


class RoomRegistry(Registry[Room]):
    """The declared rooms of the project, by the pattern that the rooms' names match."""

    def __init__(self) -> None:
        super().__init__(
            Room,
            noun="Rooms",
            name_attribute="pattern",
            options=ROOM_OPTIONS,
            get_setting=lambda: conf.rooms,
        )
        # a cached function that finds the declaration of a room among `_searched`
        self._find: Callable[[str], Room | None] | None = None
        # the declarations that `_find` searches, to notice that they were replaced
        self._searched: Mapping[str, Room] | None = None

    def find(self, name: str) -> Room | None:
        """Return the declaration for a room: the one with its name, or the first that matches.

        Returns None if rooms are declared but no pattern matches, and a plain `Room` if the
        project declares no rooms. The room of the admin's pages cannot be declared.
        """
        if name == OPERATIONS_ROOM:
            return _operations_room
        declarations = self._declarations()
        if self._find is None or self._searched is not declarations:
            self._find = lru_cache(maxsize=ROOM_CACHE_SIZE)(partial(_find_room, declarations))
            self._searched = declarations
        return self._find(name)


def _find_room(declarations: Mapping[str, Room], name: str) -> Room | None:
    if not declarations:
        return Room()
    if name in declarations:
        return declarations[name]
    for pattern, room in declarations.items():
        if re.match(translate(pattern), name):
            return room
    return None


_operations_room = OperationsRoom()
registry = CollectionRegistry()
room_registry = RoomRegistry()


def register(name: str) -> Callable[[C], C]:
    """Register the decorated `Collection` under the name that clients use.

    Write ``@register("orders")`` above ``class Orders(Collection)``, in a module named
    ``realtime`` of an installed app. These modules are imported at start.
    """
    return registry.decorator(name)


def register_room(pattern: str) -> Callable[[C], C]:
    """Register the decorated `Room` for all rooms whose names match a pattern.

    In a pattern, ``*`` matches any text, ``?`` one character, and ``[abc]`` one of these
    characters. It is case-sensitive. Put the class into a module named ``realtime`` of an
    installed app. These modules are imported at start.
    """
    return room_registry.decorator(pattern)

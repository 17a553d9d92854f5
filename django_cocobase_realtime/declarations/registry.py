"""All collections of the project: those of settings and those registered as classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from django.core.exceptions import ImproperlyConfigured

from ..conf import conf
from .collection import OPTIONS, Collection

C = TypeVar("C", bound=type[Collection])


class UnknownCollection(LookupError):
    """No collection of this name is declared."""


class Registry:
    """Collections by name, resolved anew when the setting changes."""

    def __init__(self) -> None:
        self._classes: dict[str, type[Collection]] = {}
        self._resolved: dict[str, Collection] | None = None
        self._declared: Any = None

    def register(self, name: str, cls: type[Collection]) -> None:
        """Add a class. Raises ``ImproperlyConfigured`` where the name is taken by another."""
        known = self._classes.get(name)
        if known is not None and known is not cls:
            raise ImproperlyConfigured(f"Two classes are registered as collection {name!r}.")
        if not (isinstance(cls, type) and issubclass(cls, Collection)):
            raise ImproperlyConfigured(f"Collection {name!r} must be a subclass of Collection.")
        self._classes[name] = cls
        self._resolved = None

    def unregister(self, name: str) -> None:
        """Take a class out again; nothing where it was not there."""
        self._classes.pop(name, None)
        self._resolved = None

    @property
    def registered(self) -> dict[str, type[Collection]]:
        """Registered classes by name."""
        return dict(self._classes)

    def clear_cache(self) -> None:
        """Resolve again at the next look."""
        self._resolved = None

    def _collections(self) -> dict[str, Collection]:
        declared = conf.collections
        if self._resolved is None or self._declared is not declared:
            found: dict[str, Collection] = {}
            for name, cls in self._classes.items():
                found[name] = cls()
                found[name].__dict__["name"] = name
            for name, declaration in declared.items():
                found[name] = from_settings(name, declaration)
            self._resolved, self._declared = found, declared
        return self._resolved

    def get(self, name: str) -> Collection:
        """The collection of this name. Raises `UnknownCollection`."""
        collection = self._collections().get(name)
        if collection is None:
            raise UnknownCollection(name)
        return collection

    def __iter__(self) -> Iterator[Collection]:
        return iter(list(self._collections().values()))


registry = Registry()


def register(name: str) -> Callable[[C], C]:
    """Class decorator: declare a collection by its name on the wire.

    ``@register("orders")`` above ``class Orders(Collection)``; modules named ``realtime`` in
    installed apps are imported at start.
    """

    def decorate(cls: C) -> C:
        registry.register(name, cls)
        return cls

    return decorate


def from_settings(name: str, declaration: Any) -> Collection:
    """A collection from its entry in ``COLLECTIONS``: a model label or a mapping of options.

    Raises ``ImproperlyConfigured`` for anything else.
    """
    if isinstance(declaration, str):
        declaration = {"model": declaration}
    if not isinstance(declaration, Mapping) or "model" not in declaration:
        raise ImproperlyConfigured(
            f"Collection {name!r} must be a model label or a dictionary with a 'model'."
        )
    unknown = sorted(set(declaration) - set(OPTIONS))
    if unknown:
        raise ImproperlyConfigured(
            f"Collection {name!r} has unknown options {unknown}; known are {list(OPTIONS)}."
        )
    attributes = dict(declaration)
    serializer = attributes.get("serializer")
    if callable(serializer) and not isinstance(serializer, type):
        attributes["serializer"] = staticmethod(serializer)
    collection: Collection = type("SettingsCollection", (Collection,), attributes)()
    collection.__dict__["name"] = name
    return collection

"""JSON values that cannot be changed, for objects that several readers share."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, NoReturn


def freeze(value: Any) -> Any:
    """Return a JSON value whose objects and arrays raise ``TypeError`` if they are changed."""
    if isinstance(value, dict):
        return FrozenDict((key, freeze(item)) for key, item in value.items())
    if isinstance(value, list):
        return FrozenList(map(freeze, value))
    return value


def is_same(a: Any, b: Any) -> bool:
    """Return whether two JSON values, or data classes of them, are equal.

    Unlike for ``==``, ``1`` is not ``True``.
    """
    if dataclasses.is_dataclass(a) and type(a) is type(b):
        names = (field.name for field in dataclasses.fields(a))
        return all(is_same(getattr(a, name), getattr(b, name)) for name in names)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(is_same(value, b[key]) for key, value in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(is_same, a, b))
    return type(a) is type(b) and bool(a == b)


def _refuse(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
    raise TypeError("Several readers share this value; change a copy of it: copy.deepcopy(…).")


class FrozenDict(dict[str, Any]):
    """A dictionary that cannot be changed. A deep copy of it is an ordinary one."""

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return {key: copy.deepcopy(value, memo) for key, value in self.items()}

    def __copy__(self) -> dict[str, Any]:
        return dict(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


class FrozenList(list[Any]):
    """A list that cannot be changed. A deep copy of it is an ordinary one."""

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = extend = insert = pop = remove = _refuse
    clear = sort = reverse = _refuse

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Any]:
        return [copy.deepcopy(value, memo) for value in self]

    def __copy__(self) -> list[Any]:
        return list(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)

"""The names that other clients see, of the members of rooms and the senders of broadcasts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from django.db import InterfaceError, OperationalError
from django.utils.functional import Promise
from django.utils.module_loading import import_string

from ..conf import conf
from ..identity import Identity, clean_name
from ..utils.project_code import ProjectCodeFailed

KEYS = ("name",)  # that the function of the MEMBER setting may return


def with_member_name(identity: Identity) -> Identity:
    """Return the identity with the name that the function of the ``MEMBER`` setting returns.

    Without that setting, or if the function returns None, the name stays as it is. If the function
    fails, this is logged, and the name stays as well, so that its user can log in. May use the
    ORM, so it must not be called in an event loop. Raises the exceptions of a database that does
    not answer.
    """
    path = conf.member
    if path is None:
        return identity
    try:
        function: Callable[[Identity], Any] = import_string(path)
        name = _name_in(function(identity))
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:
        failure = ProjectCodeFailed("the setting MEMBER", path, identity.credential)
        failure.__cause__ = error
        failure.log()
        return identity
    return identity if name is None else replace(identity, name=name)


def _name_in(member: Any) -> str | None:
    """Return the name in a return value of the function; None if it returned None.

    Raises ``TypeError`` or ``ValueError`` for other values.
    """
    if member is None:
        return None
    if not isinstance(member, Mapping) or "name" not in member:
        raise TypeError(f"It must return a dictionary with 'name', or None, not {type(member)}.")
    unknown = sorted(map(str, set(member) - set(KEYS)))
    if unknown:
        raise ValueError(f"The keys {unknown} are not supported; use the state of the member.")
    name = member["name"]
    name = clean_name(str(name) if isinstance(name, Promise) else name)
    if not name:
        raise ValueError("The name must be a text that is not empty.")
    return name

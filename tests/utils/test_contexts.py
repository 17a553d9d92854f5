"""Context variables are equal unless a project's code could notice a difference."""

from contextvars import ContextVar, copy_context

import pytest
from asgiref.local import Local
from asgiref.sync import ThreadSensitiveContext
from django.core.cache import caches
from django.utils import translation

from django_cocobase_realtime.utils.concurrency import set_owner
from django_cocobase_realtime.utils.contexts import context_key
from django_cocobase_realtime.utils.fair_queue import Owner

tenant = ContextVar("tenant")
local = Local()


def key_after(*calls):
    """Return the key of a context in which functions were called, and the context."""
    context = copy_context()
    for call in calls:
        context.run(call)
    return context_key(context), context


def set_local(value):
    return lambda: setattr(local, "value", value)


@pytest.mark.parametrize(
    "call",
    [
        lambda: tenant.set("b"),
        lambda: translation.activate("fr"),
        set_local("b"),
    ],
    ids=["variable", "translation", "local"],
)
async def test_values_of_the_project_differ(call):
    calls = (lambda: tenant.set("a"), lambda: translation.activate("de"), set_local("a"))
    first, _context = key_after(*calls)
    again, _other = key_after(*calls)
    changed, _changed = key_after(*calls, call)
    assert first == again != changed


async def test_objects_that_each_task_has_are_equal():
    variable = ContextVar("thread_sensitive")
    keys = [
        key_after(
            lambda number=number: set_owner(Owner(number)),
            lambda: caches.create_connection("default"),
            lambda: setattr(caches._connections, "default", caches.create_connection("default")),
            lambda: variable.set(ThreadSensitiveContext()),
        )[0]
        for number in range(2)
    ]
    assert keys[0] == keys[1]

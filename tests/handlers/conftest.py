"""Fixtures for tests of handlers."""

import pytest

from django_cocobase_realtime import on_change
from django_cocobase_realtime.declarations.handler import handler_registry


@pytest.fixture
def handle():
    """Register functions for the duration of the test: ``handle(function, "posts", name="h")``."""
    names = []

    def register(function, collection="posts", *, name="h", **options):
        on_change(collection, name=name, **options)(function)
        names.append(name)
        return handler_registry.all()[-1]

    yield register
    for name in names:
        handler_registry.remove(name)

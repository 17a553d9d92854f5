"""Fixtures for the tests of rooms."""

import pytest

from django_cocobase_realtime.presence import base as presence_base
from tests.support.rooms import SHORT_TIMES


@pytest.fixture(params=["database", "memory"])
def presence(request, settings):
    settings.COCOBASE_REALTIME = {"PRESENCE": {"BACKEND": request.param, **SHORT_TIMES}}
    presence_base._backend.cache_clear()


@pytest.fixture
def bob(transactional_db, django_user_model):
    return django_user_model.objects.create_user("bob", is_staff=True)

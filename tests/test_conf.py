"""Reading COCOBASE_REALTIME."""

import pytest

from django_cocobase_realtime.conf import conf
from django_cocobase_realtime.declarations.registry import UnknownCollection, registry
from tests.app.models import Post


def test_settings_are_read_when_used(settings):
    settings.COCOBASE_REALTIME = {"LIMITS": {"subscriptions": 7}, "HEARTBEAT": 3}
    assert (conf.limits.subscriptions, conf.limits.rooms, conf.heartbeat) == (7, 50, 3)
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"news": "app.Post"}}
    assert (conf.limits.subscriptions, conf.heartbeat, conf.jwt) == (100, 25, None)
    assert [c.name for c in registry] == ["news"]
    assert registry.get("news").model_class is Post
    with pytest.raises(UnknownCollection):
        registry.get("posts")
    del settings.COCOBASE_REALTIME
    assert list(registry) == []

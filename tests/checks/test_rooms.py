"""System checks of ROOMS and PRESENCE."""

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_cocobase_realtime import Room, register_room
from django_cocobase_realtime.checks import check_settings
from django_cocobase_realtime.declarations.registry import room_registry


class AllowJoin:
    def can_join(self, identity, room):
        return True


class WithoutMethods:
    pass


REDIS = {"default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer"}}


def check_ids(settings, value):
    settings.DEBUG = True
    settings.COCOBASE_REALTIME = value
    return [message.id.removeprefix("cocobase_realtime.") for message in check_settings()]


@pytest.mark.parametrize(
    ("value", "id"),
    [
        ({"ROOMS": ["chat-*"]}, "E090"),
        ({"ROOMS": {"": {}}}, "E090"),
        ({"ROOMS": {7: {}}}, "E090"),
        ({"ROOMS": {"chat-*": True}}, "E091"),
        ({"ROOMS": {"chat-*": {"colour": "red"}}}, "E091"),
        ({"ROOMS": {"chat-*": {"history": "all"}}}, "E091"),
        ({"ROOMS": {"chat-*": {"history": True}}}, "E091"),
        ({"ROOMS": {"chat-*": {"history": -1}}}, "E091"),
        ({"ROOMS": {"chat-*": {"durable": 1}}}, "E091"),
        ({"ROOMS": {"chat-*": {"title": 5}}}, "E091"),
        ({"ROOMS": {"chat-*": {"permission": "nowhere.Nothing"}}}, "E092"),
        ({"ROOMS": {"chat-*": {"permission": f"{__name__}.WithoutMethods"}}}, "E093"),
        ({"PRESENCE": "redis"}, "E095"),
        ({"PRESENCE": {"BACKENDS": "redis"}}, "E095"),
        ({"PRESENCE": {"BACKEND": 5}}, "E096"),
        ({"PRESENCE": {"BACKEND": "redis"}}, "E096"),
        ({"PRESENCE": {"BACKEND": "mysql"}}, "E096"),
        ({"PRESENCE": {"BACKEND": f"{__name__}.AllowJoin"}}, "E096"),
        ({"PRESENCE": {"GRACE": "10"}}, "E097"),
        ({"PRESENCE": {"GRACE": 20}}, "E097"),
        ({"PRESENCE": {"LEASE": 1, "GRACE": 0}}, "E097"),
        ({"ROOMS": {"*": {}, "chat-*": {}}}, "W098"),
    ],
)
def test_invalid_value_is_reported_by_its_check(settings, value, id):
    assert check_ids(settings, value) == [id]


def test_memory_presence_with_redis_layer_is_reported(settings):
    settings.CHANNEL_LAYERS = REDIS
    assert check_ids(settings, {"PRESENCE": {"BACKEND": "memory"}}) == ["W099"]


def test_valid_settings_pass_all_checks(settings):
    rooms = {
        "lobby": {"title": "Lobby"},
        "chat-*": {"history": 50, "durable": True, "permission": f"{__name__}.AllowJoin"},
        "*": {},
    }
    assert (
        check_ids(settings, {"ROOMS": rooms, "PRESENCE": {"BACKEND": "memory", "GRACE": 5}}) == []
    )
    redis = {"BACKEND": "redis", "URL": "redis://h:1/0"}
    assert check_ids(settings, {"PRESENCE": redis}) == []
    own = "django_cocobase_realtime.presence.memory.MemoryPresence"
    assert check_ids(settings, {"PRESENCE": {"BACKEND": own}}) == []


def test_room_class_and_setting_with_same_pattern_are_reported(settings):
    @register_room("team-*")
    class TeamRoom(Room):
        history = 5

    try:
        assert check_ids(settings, {"ROOMS": {"team-*": {}}}) == ["E094"]
        assert check_ids(settings, {}) == []
        assert isinstance(room_registry.find("team-1"), TeamRoom)
        with pytest.raises(ImproperlyConfigured):
            register_room("team-*")(type("Other", (Room,), {}))
        with pytest.raises(ImproperlyConfigured):
            register_room("x")(AllowJoin)
    finally:
        room_registry.unregister("team-*")

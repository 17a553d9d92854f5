"""Each mistake about rooms is a check with an id and a hint; what is right is found by its name."""

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_cocobase_realtime import Room, register_room
from django_cocobase_realtime.checks import check_settings
from django_cocobase_realtime.declarations.registry import room_registry


class Guests:
    def can_join(self, identity, room):
        return True


class Undecided:
    pass


REDIS = {"default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer"}}


def ids(settings, value):
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
        ({"ROOMS": {"chat-*": {"permission": f"{__name__}.Undecided"}}}, "E093"),
        ({"PRESENCE": "redis"}, "E095"),
        ({"PRESENCE": {"BACKENDS": "redis"}}, "E095"),
        ({"PRESENCE": {"BACKEND": 5}}, "E096"),
        ({"PRESENCE": {"BACKEND": "redis"}}, "E096"),
        ({"PRESENCE": {"BACKEND": "mysql"}}, "E096"),
        ({"PRESENCE": {"BACKEND": f"{__name__}.Guests"}}, "E096"),
        ({"PRESENCE": {"GRACE": "10"}}, "E097"),
        ({"PRESENCE": {"GRACE": 20}}, "E097"),
        ({"PRESENCE": {"LEASE": 1, "GRACE": 0}}, "E097"),
        ({"ROOMS": {"*": {}, "chat-*": {}}}, "W098"),
    ],
)
def test_each_mistake_has_its_check(settings, value, id):
    assert ids(settings, value) == [id]


def test_memory_with_a_layer_of_many_processes(settings):
    settings.CHANNEL_LAYERS = REDIS
    assert ids(settings, {"PRESENCE": {"BACKEND": "memory"}}) == ["W099"]


def test_what_is_right_has_nothing_to_say(settings):
    rooms = {
        "lobby": {"title": "Lobby"},
        "chat-*": {"history": 50, "durable": True, "permission": f"{__name__}.Guests"},
        "*": {},
    }
    assert ids(settings, {"ROOMS": rooms, "PRESENCE": {"BACKEND": "memory", "GRACE": 5}}) == []
    redis = {"BACKEND": "redis", "URL": "redis://h:1/0"}
    assert ids(settings, {"PRESENCE": redis}) == []
    own = "django_cocobase_realtime.presence.memory.MemoryPresence"
    assert ids(settings, {"PRESENCE": {"BACKEND": own}}) == []


def test_the_exact_name_then_the_first_pattern(settings):
    settings.COCOBASE_REALTIME = {}
    assert room_registry.find("anything").get_title("anything") == "anything"
    settings.COCOBASE_REALTIME = {
        "ROOMS": {"chat-*": {"title": "Chat"}, "chat-vip": {"title": "VIP"}, "c*": {"title": "C"}}
    }
    titles = {name: room_registry.find(name) for name in ("chat-1", "chat-vip", "cx", "Chat-1")}
    assert {name: room and room.title for name, room in titles.items()} == {
        "chat-1": "Chat",
        "chat-vip": "VIP",
        "cx": "C",
        "Chat-1": None,
    }
    settings.COCOBASE_REALTIME = {"ROOMS": {"d?": {}}}
    assert room_registry.find("chat-1") is None
    assert room_registry.find("d1") is not None


def test_a_class_and_a_setting_cannot_share_a_pattern(settings):
    @register_room("team-*")
    class Team(Room):
        history = 5

    try:
        assert ids(settings, {"ROOMS": {"team-*": {}}}) == ["E094"]
        assert ids(settings, {}) == []
        assert isinstance(room_registry.find("team-1"), Team)
        with pytest.raises(ImproperlyConfigured):
            register_room("team-*")(type("Other", (Room,), {}))
        with pytest.raises(ImproperlyConfigured):
            register_room("x")(Guests)
    finally:
        room_registry.unregister("team-*")

"""The registry of rooms."""

from django_cocobase_realtime.declarations.registry import room_registry


def test_room_is_found_by_exact_name_then_by_first_pattern(settings):
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

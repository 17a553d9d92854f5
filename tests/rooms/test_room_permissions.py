"""Permissions to join a room, to broadcast and to see members, and changes of them."""

from asgiref.sync import sync_to_async

from django_cocobase_realtime import Room, permissions_changed, register_room
from django_cocobase_realtime.declarations.registry import room_registry
from tests.support.rooms import configure, receive_presence


class HallPermission:
    """Users may join, staff may broadcast, users named "ada" see the members."""

    def can_join(self, identity, room):
        return identity.user_id is not None and not room.endswith("closed")

    def can_broadcast(self, identity, room):
        return identity.user.is_staff

    def can_see_members(self, identity, room):
        return identity.name == "ada"


async def test_join_broadcast_and_members_follow_permission(realtime, user, bob, api_key, settings):
    configure(
        settings, {"hall-*": {"permission": f"{__name__}.HallPermission", "title": "The Hall"}}
    )
    async with realtime(user=user) as ada, realtime(user=bob) as staff:
        async with realtime(token=api_key) as stranger:
            answers = [
                await stranger.request({"type": "join", "room": room, "id": 1})
                for room in ("hall-1", "hall-closed", "nowhere")
            ]
        assert {a["code"] for a in answers} == {"forbidden"}
        texts = {
            a["message"].replace(room, "?")
            for a, room in zip(answers, ("hall-1", "hall-closed", "nowhere"), strict=True)
        }
        assert len(texts) == 1
        assert (await ada.join("hall-1"))["title"] == "The Hall"
        reply = await staff.join("hall-1")
        assert (reply["participants"], reply["members"]) == (2, [])
        assert await receive_presence(ada) == ("joined", "bob", 2)
        request = {"type": "broadcast", "room": "hall-1", "message": "hi", "id": 2}
        assert (await ada.request(request))["code"] == "forbidden"
        await staff.send(request)
        assert (await ada.receive("event"))["message"] == "hi"
        assert {(await staff.receive())["type"] for _ in "ab"} == {"event", "sent"}
        await ada.send({"type": "leave", "room": "hall-1"})
        await ada.receive("left")
        assert await staff.receive_nothing()  # no presence frames without permission to see members


async def test_changed_permission_closes_connection(realtime, user, bob, settings):
    configure(settings, {"hall-*": {"permission": f"{__name__}.HallPermission"}, "*": {}})
    async with realtime(user=user) as ada, realtime(user=bob) as staff:
        await ada.join("lobby")
        await staff.join("hall-1")
        bob.is_staff = False
        await bob.asave()
        assert await staff.closed() == 4201
        user.first_name = "Ada"
        await user.asave()
        await sync_to_async(permissions_changed)(user)
        assert (await ada.request({"type": "ping"}))["type"] == "pong"


async def test_room_class_decides_join(realtime, user, bob, settings):
    configure(settings, {})

    @register_room("own-*")
    class Own(Room):
        history = 2

        def can_join(self, identity, room):
            return room == f"own-{identity.user_id}"

    try:
        async with realtime(user=user) as ada:
            await ada.join(f"own-{user.pk}")
            reply = await ada.request({"type": "join", "room": f"own-{bob.pk}"})
            assert reply["code"] == "forbidden"
    finally:
        room_registry.unregister("own-*")

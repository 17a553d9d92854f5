"""Cursors that no server has made: they give nothing but a resync."""

import pytest
from asgiref.sync import sync_to_async

from django_cocobase_realtime.log.cursor import InvalidCursor, decode, encode
from django_cocobase_realtime.models import Stream
from tests.app.models import Post
from tests.support.rooms import configure

pytestmark = pytest.mark.django_db(transaction=True)


def forgeries(cursor, other):
    """Return texts made of a genuine cursor, and of one of another stream."""
    code, epoch, seq = cursor.split(".")
    other_code, other_epoch, other_seq = other.split(".")
    numbers = (0, 1, int(seq) - 1, int(seq) + 1, -1, 10**18, 2**63 - 1, 2**63, 10**30, "", "1e3")
    return [
        *(f"{code}.{epoch}.{number}" for number in numbers),
        f"{code}.{epoch}.0{seq}",
        f"{code}.{other_epoch}.{seq}",
        f"{other_code}.{epoch}.{seq}",
        f"{other_code}.{other_epoch}.{other_seq}",
        f"{code}.{'0' * 16}.{seq}",
        f"{'0' * len(code)}.{epoch}.{seq}",
        f"{code.upper()}.{epoch}.{seq}",
        f"{code[:-1]}.{epoch}.{seq}",
        f".{epoch}.{seq}",
        f"{epoch}.{seq}",
        cursor + "\n",
    ]


async def test_forged_cursor_of_collection_causes_resync(realtime, api_key, settings):
    """The client began after the first changes, and must not get them."""
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": "app.Post", "authors": "app.Author"},
        "LIMITS": {"subscribe_rate": (1000, 1000)},
    }
    for number in range(3):
        await Post.objects.acreate(title=f"before {number}")
    async with realtime(token=api_key) as client:
        genuine = (await client.subscribe("posts"))["cursor"]
        other = (await client.subscribe("authors"))["cursor"]
        epoch = await sync_to_async(Stream.objects.values_list("epoch", flat=True).get)(
            collection="posts"
        )
        assert decode("posts", genuine).epoch == epoch
        scope = "0" * 16
        for forged in forgeries(genuine, other):
            if forged == genuine:
                continue  # its code has no letters
            for options in ({}, {"scope": scope}):
                reply = await client.subscribe("posts", since=forged, **options)
                assert (reply["resumed"], reply["resync"]) == (
                    False,
                    {"reason": "invalid_cursor"},
                ), forged
        assert await client.receive_nothing()
        reply = await client.subscribe("posts", since=genuine)
        assert reply["resumed"] is True
        assert await client.receive_nothing()


async def test_forged_cursor_of_room_causes_resync(realtime, user, settings):
    configure(settings, {"*": {"history": 20}})
    async with realtime(user=user) as client:
        other = (await client.join("other"))["cursor"]
        await client.join("r")
        for number in range(3):
            await client.send({"type": "broadcast", "room": "r", "message": number})
            genuine = (await client.receive("event"))["cursor"]
        await client.send({"type": "leave", "room": "r"})
        await client.receive("left")
        for forged in forgeries(genuine, other):
            if forged == genuine:
                continue
            reply = await client.join("r", since=forged)
            assert reply["resync"] == {"reason": "invalid_cursor"}, forged
            assert await client.receive_nothing(0.01)
            await client.send({"type": "leave", "room": "r"})
            await client.receive("left")


def test_cursor_is_valid_only_with_the_secret_key_that_made_it(settings):
    cursor = encode("posts", "abcd", 7)
    assert decode("posts", cursor).seq == 7
    settings.SECRET_KEY = "another"
    with pytest.raises(InvalidCursor):
        decode("posts", cursor)
    assert encode("posts", "abcd", 7) != cursor
    settings.SECRET_KEY = b"as bytes"
    assert decode("posts", encode("posts", "abcd", 7)).seq == 7


def test_codes_of_streams_and_positions_are_distinct():
    codes = {
        encode(stream, epoch, seq).partition(".")[0]
        for stream in ("a", "a.1", "1.a", "")
        for epoch in ("1", "11", "a")
        for seq in (1, 11, 111)
    }
    assert len(codes) == 4 * 3 * 3

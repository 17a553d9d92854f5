"""Read frames of the in-process client."""


async def receive_title(client):
    """Return the title of the next event's document; skip cursor frames before it."""
    while (frame := await client.receive())["type"] == "cursor":
        pass
    assert frame["type"] == "event", frame
    return frame["document"]["data"]["title"]

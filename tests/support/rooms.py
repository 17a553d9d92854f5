"""What tests of rooms set up and read."""

SHORT = {"GRACE": 0.6, "LEASE": 3}


def configure(settings, rooms, **more):
    settings.COCOBASE_REALTIME = {"ROOMS": rooms, "PRESENCE": SHORT, **more}


async def presence_of(client):
    frame = await client.receive("presence")
    return frame["event"], frame["member"]["name"], frame["participants"]

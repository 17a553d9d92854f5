"""Settings and assertions shared by the tests of rooms."""

SHORT_TIMES = {"GRACE": 0.6, "LEASE": 3}


def configure(settings, rooms, **more):
    settings.COCOBASE_REALTIME = {"ROOMS": rooms, "PRESENCE": SHORT_TIMES, **more}


async def receive_presence(client):
    frame = await client.receive("presence")
    return frame["event"], frame["member"]["name"], frame["participants"]

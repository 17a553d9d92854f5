"""Snapshots: pages, limits, and the events that follow them."""

import asyncio

import pytest

from tests.app.models import Post


def titles(frames):
    return [frame["document"]["data"]["title"] for frame in frames]


async def test_snapshot_is_sent_before_live_events(realtime, api_key):
    posts = [await Post.objects.acreate(title=str(n), views=n % 3) for n in range(7)]
    async with realtime(token=api_key) as client:
        reply = await client.subscribe("posts", snapshot=True, fields=["title"])
        frame = await client.receive("snapshot")
        assert frame["documents"] == [{"id": str(p.pk), "data": {"title": p.title}} for p in posts]
        assert (frame["more"], frame["cursor"]) == (False, reply["cursor"])
        await Post.objects.acreate(title="live")
        assert titles([await client.receive("event")]) == ["live"]
        options = {"snapshot": {"limit": 2, "order": "-title"}, "filters": {"views": 1}}
        await client.subscribe("posts", **options)
        frame = await client.receive("snapshot")
        assert [d["data"]["title"] for d in frame["documents"]] == ["4", "1"]
        await client.subscribe("posts", filters={"views": 99}, snapshot=True)
        assert (await client.receive("snapshot"))["documents"] == []


async def test_snapshot_is_sent_in_pages_and_marked_when_truncated(realtime, api_key, settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": "app.Post"},
        "LIMITS": {"snapshot_documents": 450},
    }
    await Post.objects.abulk_create(Post(title=str(n)) for n in range(500))
    async with realtime(token=api_key) as client:
        await client.subscribe("posts", snapshot=True)
        frames = [await client.receive("snapshot") for _ in range(3)]
        assert [len(f["documents"]) for f in frames] == [200, 200, 50]
        assert [f["more"] for f in frames] == [True, True, False]
        assert frames[-1]["truncated"] is True


@pytest.mark.parametrize("durable", [True, False])
async def test_snapshot_and_events_match_the_table_during_writes(
    realtime, api_key, settings, durable
):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": {"model": "app.Post", "durable": durable}},
        "LIMITS": {"subscribe_rate": (1000, 1000)},
    }
    posts = [await Post.objects.acreate(title="x") for _ in range(10)]
    writing = True

    async def write():
        n = 0
        while writing:
            n += 1
            post = posts[n % 10]
            post.views = n
            await post.asave(update_fields=["views"])
            if n % 7 == 0:
                fresh = await Post.objects.acreate(title="y", views=n)
                await fresh.adelete()

    task = asyncio.create_task(write())
    async with realtime(token=api_key) as client:
        rounds = 40
        replicas = []
        for n in range(rounds):
            name = f"s{n}"
            sent = {"collection": "posts", "subscription": name, "snapshot": True}
            await client.send({"type": "subscribe", **sent})
            replicas.append({})
            await asyncio.sleep(0.01)
        writing = False
        await task
        expected = {str(p.pk): p.views async for p in Post.objects.all()}

        def converged():
            return all(rows == expected for rows in replicas)

        async with asyncio.timeout(20):
            while True:
                if converged() and await client.receive_nothing(0.3):
                    break
                frame = await client.receive()
                if frame["type"] == "snapshot":
                    rows = replicas[int(frame["subscription"][1:])]
                    rows |= {d["id"]: d["data"]["views"] for d in frame["documents"]}
                elif frame["type"] == "event":
                    id = frame["document"]["id"]
                    for name in frame["subscriptions"]:
                        rows = replicas[int(name[1:])]
                        if frame["event"] == "deleted":
                            rows.pop(id, None)
                        else:
                            rows[id] = frame["document"]["data"]["views"]

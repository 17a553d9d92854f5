"""Log lines about a connection have its id, and are not repeated."""

import logging

from django.db import OperationalError

from django_cocobase_realtime.hub.hub import Hub


async def test_failed_request_is_logged_with_the_id_of_the_connection(
    realtime, user, monkeypatch, caplog
):
    async def fail(hub, connection, effect):
        raise OperationalError("no database")

    async with realtime(user=user) as client:
        (connection,) = Hub.current().connections.values()
        monkeypatch.setattr("django_cocobase_realtime.consumers.executor.execute", fail)
        await client.send({"type": "subscribe", "collection": "posts"})
        assert await client.closed() == 4101
    lines = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    text = "the database is unavailable: OperationalError('no database')"
    assert lines == [f"Connection {connection.id}: {text}"]


async def test_many_failed_requests_are_logged_for_ten_connections(
    realtime, user, monkeypatch, caplog
):
    async def fail(hub, connection, effect):
        raise RuntimeError("a mistake")

    for _ in range(13):
        async with realtime(user=user) as client:
            with monkeypatch.context() as patch:
                patch.setattr("django_cocobase_realtime.consumers.executor.execute", fail)
                await client.send({"type": "subscribe", "collection": "posts"})
                assert await client.closed() == 4100
    records = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert len(records) == len({r.getMessage() for r in records}) == 10
    assert all(record.exc_info for record in records)

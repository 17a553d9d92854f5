"""``realtime_kick``: from a shell, into every server."""

from io import StringIO

import pytest
from asgiref.sync import sync_to_async
from django.core.management import CommandError, call_command

from django_cocobase_realtime.models import ApiKey
from tests.support.client import connect


async def call(function, *args, **options):
    return await sync_to_async(function)(*args, **options)


@pytest.mark.server
async def test_kick(serve, redis, user, settings):
    layers = redis.layer("pubsub")
    settings.CHANNEL_LAYERS = layers
    server = await call(serve, "uvicorn", layers=layers)
    make = sync_to_async(ApiKey.objects.create_key)
    _, mine = await make("mine", user=user)
    key, bare = await make("bare")
    async with connect(server.socket_url, mine) as ada, connect(server.socket_url, bare) as app:
        await call(call_command, "realtime_kick", user="ada", project="other", stdout=StringIO())
        await call(call_command, "realtime_kick", user="ada", stdout=StringIO())
        assert await ada.closed() == 4500
        assert (await app.request({"type": "ping"}))["type"] == "pong"
        await call(call_command, "realtime_kick", key=key.prefix, stdout=StringIO())
        assert await app.closed() == 4500
    with pytest.raises(CommandError, match="no key"):
        await call(call_command, "realtime_kick", key="nonsense", stdout=StringIO())


def test_it_says_where_nobody_would_hear(transactional_db):
    with pytest.raises(CommandError, match="does not reach other processes"):
        call_command("realtime_kick", user="ada")


def test_whom(transactional_db):
    with pytest.raises(CommandError):
        call_command("realtime_kick")

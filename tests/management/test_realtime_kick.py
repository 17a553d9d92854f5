"""The command ``realtime_kick``."""

from io import StringIO

import pytest
from asgiref.sync import sync_to_async
from django.core.management import CommandError, call_command

from django_cocobase_realtime.models import ApiKey
from tests.support.client import connect


async def call(function, *args, **options):
    return await sync_to_async(function)(*args, **options)


@pytest.mark.server
async def test_kick_disconnects_user_or_key_from_servers(serve, redis, user, settings):
    layers = redis.layer("pubsub")
    settings.CHANNEL_LAYERS = layers
    server = await call(serve, "uvicorn", layers=layers)
    create_key = sync_to_async(ApiKey.objects.create_key)
    _, user_key = await create_key("mine", user=user)
    key, app_key = await create_key("bare")
    async with (
        connect(server.socket_url, user_key) as ada,
        connect(server.socket_url, app_key) as app,
    ):
        await call(call_command, "realtime_kick", user="ada", project="other", stdout=StringIO())
        await call(call_command, "realtime_kick", user="ada", stdout=StringIO())
        assert await ada.closed() == 4500
        assert (await app.request({"type": "ping"}))["type"] == "pong"
        await call(call_command, "realtime_kick", key=key.prefix, stdout=StringIO())
        assert await app.closed() == 4500
    with pytest.raises(CommandError, match="no key"):
        await call(call_command, "realtime_kick", key="nonsense", stdout=StringIO())


def test_kick_with_in_memory_layer_is_rejected(transactional_db):
    with pytest.raises(CommandError, match=r"does not reach .* deactivate the user or revoke"):
        call_command("realtime_kick", user="ada")


def test_kick_without_user_or_key_is_rejected(transactional_db):
    with pytest.raises(CommandError):
        call_command("realtime_kick")

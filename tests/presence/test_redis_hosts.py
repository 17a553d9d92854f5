"""The ways in which the Redis of presence can be described, each with a real connection."""

import contextlib

import pytest
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from django_cocobase_realtime.options import PresenceSettings
from django_cocobase_realtime.presence.base import PresenceUnavailable
from django_cocobase_realtime.presence.redis import RedisPresence
from tests.support.servers import Redis, free_port

PUBSUB = "channels_redis.pubsub.RedisPubSubChannelLayer"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    socket = tmp_path_factory.mktemp("redis") / "redis.sock"
    server = Redis()
    server.command += ["--unixsocket", str(socket), "--requirepass", "secret"]
    server.socket = socket
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize(
    "describe",
    [
        lambda server: f"redis://:secret@127.0.0.1:{server.port}/3",
        lambda server: f"unix://:secret@{server.socket}?db=3",
        lambda server: {
            "address": f"redis://127.0.0.1:{server.port}/3",
            "password": "secret",
            # options for the layer's own connections
            "socket_timeout": None,
            "retry": Retry(NoBackoff(), 1),
            "decode_responses": False,
        },
        lambda server: {"host": "127.0.0.1", "port": server.port, "db": 3, "password": "secret"},
    ],
)
@pytest.mark.parametrize("of", ["layer", "presence"])
def test_redis_of_the_layer_or_of_presence_is_used(settings, server, describe, of):
    host = describe(server)
    options = PresenceSettings()
    if of == "layer":
        settings.CHANNEL_LAYERS = {"default": {"BACKEND": PUBSUB, "CONFIG": {"hosts": [host]}}}
    else:
        options = PresenceSettings(url=host)
    with contextlib.closing(RedisPresence(options)) as presence:
        assert presence.renew_lease("server", 60) is False
        assert presence.renew_lease("server", 60) is True
        assert presence._redis.client_info()["db"] == 3
        presence._redis.flushdb()


def test_sentinels_that_do_not_answer_make_presence_unavailable():
    host = {"sentinels": [("127.0.0.1", free_port())], "master_name": "mymaster"}
    backend = RedisPresence(PresenceSettings(url=host))
    with contextlib.closing(backend) as presence, pytest.raises(PresenceUnavailable):
        presence.renew_lease("server", 60)

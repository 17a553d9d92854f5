"""The Redis in which presence is stored: where it is, and connections to it.

It is described as in ``hosts`` of the channel layer, by a URL, a pair of host and port, or a
dictionary: a URL as ``address`` with further options, the options of a connection, or
``sentinels`` and ``master_name``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from redis import ConnectionPool, RedisError
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from ..options import PresenceSettings
from ..pubsub.layer import layer_hosts

TIMEOUT = 5.0  # seconds that Redis may take to accept a connection, and to answer
# options of the channel layer's connections that presence does not take over: it has its own, or
# they are objects for asyncio
OTHER_OPTIONS = {
    "socket_timeout",
    "socket_connect_timeout",
    "decode_responses",
    "encoding",
    "encoding_errors",
    "retry",
    "retry_on_timeout",
    "retry_on_error",
}

# a URL, a pair of host and port, or a dictionary
Host = str | tuple[Any, ...] | list[Any] | Mapping[str, Any]


def presence_host(settings: PresenceSettings) -> Host:
    """Return the Redis that ``PRESENCE`` names, or else the only one of the channel layer.

    Raises ``ImproperlyConfigured`` if the layer has none or several.
    """
    if settings.url:
        return settings.url
    hosts = layer_hosts()
    if not hosts:
        raise ImproperlyConfigured(
            "PRESENCE needs the 'URL' of a Redis, because CHANNEL_LAYERS does not contain one."
        )
    if len(hosts) > 1:
        raise ImproperlyConfigured(
            f"PRESENCE needs the 'URL' of one Redis, because CHANNEL_LAYERS contains {len(hosts)}."
        )
    host: Host = hosts[0]
    return host


def connection_pool(host: Host) -> ConnectionPool:
    """Return connections to a Redis, none of which is open yet.

    Raises ``ImproperlyConfigured`` if its description cannot be used.
    """
    if isinstance(host, str):
        host = {"address": host}
    elif isinstance(host, tuple | list) and len(host) == 2:
        host = {"host": host[0], "port": host[1]}
    try:
        if not isinstance(host, Mapping):
            raise TypeError("It is neither a URL, nor a pair, nor a dictionary.")
        pool = _make_pool(dict(host))
        # find wrong options now
        connection = pool.connection_class(**pool.connection_kwargs)
        if not isinstance(connection, AbstractConnection):
            raise TypeError(f"{pool.connection_class!r} is a class for asyncio.")
    except (TypeError, ValueError, KeyError, AttributeError, RedisError) as error:
        raise ImproperlyConfigured(
            f"PRESENCE cannot connect to the Redis that is described to it: {error!r}"
        ) from error
    return pool


def _make_pool(host: dict[str, Any]) -> ConnectionPool:
    timeouts = {
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": TIMEOUT,
        # never repeat a call, since the second one would not return what the first has changed
        "retry": Retry(NoBackoff(), 0),
    }
    options = {key: value for key, value in host.items() if key not in OTHER_OPTIONS}
    options |= {**timeouts, "decode_responses": True}
    if (address := options.pop("address", None)) is not None:
        return ConnectionPool.from_url(address, **options)
    if (name := options.pop("master_name", None)) is not None:
        sentinels = Sentinel(  # type: ignore[no-untyped-call]
            options.pop("sentinels"),
            sentinel_kwargs=timeouts | dict(options.pop("sentinel_kwargs", None) or {}),
        )
        return SentinelConnectionPool(name, sentinels, **options)  # type: ignore[no-untyped-call]
    return ConnectionPool(**options)

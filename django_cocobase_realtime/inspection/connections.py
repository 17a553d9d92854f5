"""The open connections of all server processes."""

from __future__ import annotations

from asgiref.sync import async_to_sync

from .records import ConnectionInfo
from .requests import DEFAULT_TIMEOUT, request_all


async def aconnections(*, timeout: float = DEFAULT_TIMEOUT) -> list[ConnectionInfo]:
    """Return the authenticated connections of all server processes, the oldest first.

    The function asks all processes through the channel layer. It returns when all that have
    connections have answered, or after ``timeout`` seconds with the answers until then; a warning
    is logged. If the layer does not reach other processes, the result has the connections of this
    one. The result is not restricted by any permission.
    """
    listed = await request_all("connections", ConnectionInfo, timeout)
    return sorted(listed, key=lambda connection: connection.connected_at)


def connections(*, timeout: float = DEFAULT_TIMEOUT) -> list[ConnectionInfo]:
    """Return the same as `aconnections`, for synchronous code.

    Raises ``RuntimeError`` in a thread with a running event loop, which it would block.
    """
    result: list[ConnectionInfo] = async_to_sync(aconnections)(timeout=timeout)
    return result

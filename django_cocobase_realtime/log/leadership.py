"""The choice of one process per stream that numbers its events: the leader.

If every process numbered when it is notified, all of them would do the same work, and wait for each
other. The leader of a stream holds a session-level advisory lock of PostgreSQL, which is released
when its connection ends. Others try to get it at their first read and regularly afterwards.

This only saves work. Two processes that number the same stream at the same time wait for the lock
of its row, and each event gets one number.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from hashlib import blake2s

from .statements import Fetch, array_text


class StreamLeadership:
    """The streams of one database of which this process is the leader, by one connection."""

    def __init__(self, fetch: Fetch) -> None:
        # executes a statement on the connection that holds the locks
        self._fetch = fetch
        # schema of the tables, since a database may contain several logs
        self._schema = ""
        # streams of which this process is the leader
        self._leads: set[str] = set()
        # streams of which it has tried to be the leader
        self._tried: set[str] = set()

    def __contains__(self, stream: object) -> bool:
        """Return whether this process is the leader of a stream."""
        return stream in self._leads

    def was_tried(self, stream: str) -> bool:
        """Return whether this process has tried to be the leader of a stream."""
        return stream in self._tried

    def reset(self, schema: str) -> None:
        """Begin with a new connection, which holds no locks."""
        self._schema = schema
        self._leads.clear()
        self._tried.clear()

    async def acquire(self, streams: Iterable[str], *, again: bool = False) -> None:
        """Try to be the leader of streams; without ``again``, only of those not tried before."""
        keys = {
            self._key(stream): stream
            for stream in streams
            if stream not in self._leads and (again or stream not in self._tried)
        }
        if not keys:
            return
        self._tried.update(keys.values())
        rows = await self._fetch(
            "SELECT key, pg_catalog.pg_try_advisory_lock(key) FROM unnest($1::bigint[]) key",
            [array_text(keys)],
        )
        self._leads.update(keys[key] for key, is_locked in rows if is_locked)

    def release(self, stream: str) -> Awaitable[object] | None:
        """Stop being the leader of a stream.

        If this process was the leader, the result must be awaited, so that another one can be. A
        lock that is acquired in the meantime is not released by this.
        """
        self._tried.discard(stream)
        if stream not in self._leads:
            return None
        self._leads.discard(stream)
        return self._fetch("SELECT pg_catalog.pg_advisory_unlock($1)", [str(self._key(stream))])

    def _key(self, stream: str) -> int:
        name = f"cocobase_realtime {self._schema} {stream}".encode()
        return int.from_bytes(blake2s(name, digest_size=8).digest(), signed=True)

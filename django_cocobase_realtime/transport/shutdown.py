"""Preparation of ASGI servers for their shutdown.

The server is found behind its handler of SIGTERM, by its attributes. If it is not found, its own
shutdown does what it can.

uvicorn answers the requests that it has received, but it closes connections whose request has not
arrived yet. daphne stops at once, and cuts the requests that it handles.
"""

from __future__ import annotations

import contextlib
from typing import Any, Protocol


class StoppingServer(Protocol):
    """A server that will be stopped soon."""

    def stop_listening(self) -> None:
        """Accept no more connections. Those that are open stay open."""

    def is_busy(self) -> bool:
        """Return whether stopping the server now would cut HTTP requests."""


class Uvicorn:
    """An instance of ``uvicorn.Server``, also in a worker of gunicorn."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def stop_listening(self) -> None:
        """Close the listening sockets of this process."""
        for listener in self._server.servers:
            listener.close()

    def is_busy(self) -> bool:
        """Return False, because its shutdown waits for requests."""
        return False


class Daphne:
    """The HTTP factories of daphne, which listen on ports of a Twisted reactor."""

    def __init__(self, reactor: Any, ports: list[Any]) -> None:
        self._reactor = reactor
        # listening ports
        self._ports = ports
        self._factories = [port.factory for port in ports]

    def stop_listening(self) -> None:
        """Accept the connections that wait, and close the ports."""
        for port in self._ports:
            with contextlib.suppress(Exception):
                port.doRead()  # the connections that wait are reset otherwise
            port.stopListening()

    def is_busy(self) -> bool:
        """Return whether an HTTP request is not answered, or its response is not sent."""
        for factory in self._factories:
            for protocol, details in factory.server.connections.items():
                is_http = getattr(protocol, "application_type", "http") == "http"
                if is_http and "disconnected" not in details:
                    return True
        # responses that are not sent yet
        protocols = [getattr(writer, "protocol", None) for writer in self._reactor.getWriters()]
        return any(getattr(protocol, "factory", None) in self._factories for protocol in protocols)


def find_server(handler: Any) -> StoppingServer | None:
    """Return the server whose handler of SIGTERM this is; None if it is not known."""
    owner: Any = getattr(handler, "__self__", None)
    if isinstance(getattr(owner, "servers", None), list) and hasattr(owner, "handle_exit"):
        return Uvicorn(owner)
    if hasattr(owner, "getReaders") and hasattr(owner, "getWriters"):
        ports = [
            reader
            for reader in owner.getReaders()
            if hasattr(reader, "stopListening")
            and hasattr(getattr(getattr(reader, "factory", None), "server", None), "connections")
        ]
        return Daphne(owner, ports) if ports else None
    return None

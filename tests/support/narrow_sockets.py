"""Sockets of clients that read little or nothing."""

from __future__ import annotations

import socket


def open_narrow_socket(port: int, receive_buffer: int = 32768) -> socket.socket:
    """Open a connected socket with a small receive buffer, in bytes, which fills quickly."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.connect(("127.0.0.1", port))
    sock.setblocking(False)
    return sock

"""Where a client connects from."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from ..conf import conf

Address = IPv4Address | IPv6Address
UNKNOWN_ADDRESS = "unknown"


def client_ip(scope: Mapping[str, Any]) -> str:
    """The socket's address, or behind ``TRUSTED_PROXIES`` the one they forward.

    X-Forwarded-For is read from its end, for as long as those who added to it are trusted: what
    stands before was written by the client.
    """
    client = scope.get("client")
    peer = _parse(client[0]) if client else None
    if peer is None:
        return UNKNOWN_ADDRESS  # a Unix socket, a test
    if not conf.trusted_proxies:
        return _text(peer)
    address = peer
    if _is_trusted(peer):
        for text in reversed(_forwarded(scope)):
            hop = _parse(text)
            if hop is None:
                break
            address = hop
            if not _is_trusted(hop):
                break
    return str(address)


_text = lru_cache(maxsize=1024)(str)


@lru_cache(maxsize=1024)
def _parse(text: str) -> Address | None:
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def _forwarded(scope: Mapping[str, Any]) -> list[str]:
    values = [value for name, value in scope.get("headers", ()) if name == b"x-forwarded-for"]
    return b",".join(values).decode("latin1").split(",")


def _is_trusted(address: Address) -> bool:
    return any(address in ip_network(proxy, strict=False) for proxy in conf.trusted_proxies)

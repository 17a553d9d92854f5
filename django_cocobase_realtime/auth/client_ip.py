"""The IP address of a client."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from ..conf import conf
from ..types import Scope

Address = IPv4Address | IPv6Address
UNKNOWN_ADDRESS = "unknown"  # returned for all clients without an IP address


def client_ip(scope: Scope) -> str:
    """Return the address of a client.

    This is the peer's address. If that is one of ``TRUSTED_PROXIES``, it is the last address in
    X-Forwarded-For that is not a trusted proxy; the addresses before it may be invented by the
    client.
    """
    client = scope.get("client")
    peer = _parse(client[0]) if client else None
    if peer is None:
        return UNKNOWN_ADDRESS  # for example a Unix socket
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


# formatting an address takes long enough to cache it
_text = lru_cache(maxsize=1024)(str)


@lru_cache(maxsize=1024)
def _parse(text: str) -> Address | None:
    """Return the address in a text, which may also contain a port; None if it is malformed."""
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


def _forwarded(scope: Scope) -> list[str]:
    """Return the items of all X-Forwarded-For headers, in order."""
    values = [value for name, value in scope.get("headers", ()) if name == b"x-forwarded-for"]
    return b",".join(values).decode("latin1").split(",")


def _is_trusted(address: Address) -> bool:
    return any(address in ip_network(proxy, strict=False) for proxy in conf.trusted_proxies)

"""The address of a client behind proxies."""

import pytest

from django_cocobase_realtime.auth.client_ip import client_ip


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("1.2.3.4", None, "1.2.3.4"),
        ("1.2.3.4", "9.9.9.9", "1.2.3.4"),  # not a trusted proxy
        ("10.0.0.1", "9.9.9.9", "9.9.9.9"),
        ("10.0.0.1", "6.6.6.6, 9.9.9.9", "9.9.9.9"),  # the first one was written by the client
        ("10.0.0.1", "9.9.9.9, 10.1.2.3", "9.9.9.9"),
        ("10.0.0.1", "9.9.9.9, nonsense", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "9.9.9.9:1234", "9.9.9.9"),
        ("10.0.0.1", "[2001:db8::1]:80", "2001:db8::1"),
        ("::ffff:10.0.0.1", "9.9.9.9", "9.9.9.9"),
        ("2001:db8::5", None, "2001:db8::5"),
        (None, "9.9.9.9", "unknown"),
    ],
)
def test_client_ip_is_taken_from_trusted_proxies_only(settings, peer, forwarded, address):
    settings.COCOBASE_REALTIME = {"TRUSTED_PROXIES": ["10.0.0.0/8"]}
    headers = [] if forwarded is None else [(b"x-forwarded-for", forwarded.encode())]
    scope = {"client": None if peer is None else [peer, 1], "headers": headers}
    assert client_ip(scope) == address

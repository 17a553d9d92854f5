"""Addresses and failed attempts."""

import pytest

from django_cocobase_realtime.auth.client_ip import client_ip
from django_cocobase_realtime.auth.throttling import AuthThrottle


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("1.2.3.4", None, "1.2.3.4"),
        ("1.2.3.4", "9.9.9.9", "1.2.3.4"),  # nobody we trust
        ("10.0.0.1", "9.9.9.9", "9.9.9.9"),
        ("10.0.0.1", "6.6.6.6, 9.9.9.9", "9.9.9.9"),  # the client wrote the first
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
def test_addresses(settings, peer, forwarded, address):
    settings.COCOBASE_REALTIME = {"TRUSTED_PROXIES": ["10.0.0.0/8"]}
    headers = [] if forwarded is None else [(b"x-forwarded-for", forwarded.encode())]
    scope = {"client": None if peer is None else [peer, 1], "headers": headers}
    assert client_ip(scope) == address


def test_who_fails_often_is_answered_late():
    failures = AuthThrottle()
    for n in range(10):
        assert failures.delay("a", float(n)) == 0
        failures.record_failure("a", f"t{n}", float(n))
    assert failures.delay("a", 10.0) == 1
    assert failures.delay("b", 10.0) == 0
    assert failures.delay("a", 61.0) == 0


def test_the_same_wrong_credential_is_refused_from_memory_for_a_minute():
    failures = AuthThrottle()
    failures.record_failure("a", "wrong", 0.0)
    assert failures.is_known_bad("wrong", 59.0)
    assert not failures.is_known_bad("wrong", 61.0)
    assert not failures.is_known_bad("other", 1.0)
    assert b"wrong" not in b"".join(failures._bad_credentials)

"""Failed authentication attempts."""

from django_cocobase_realtime.auth.throttling import AuthThrottle


def test_address_with_many_failures_is_delayed():
    throttle = AuthThrottle()
    for n in range(10):
        assert throttle.delay("a", float(n)) == 0
        throttle.record_failure("a", f"t{n}", float(n))
    assert throttle.delay("a", 10.0) == 1
    assert throttle.delay("b", 10.0) == 0
    assert throttle.delay("a", 61.0) == 0


def test_wrong_credential_is_remembered_for_a_minute():
    throttle = AuthThrottle()
    throttle.record_failure("a", "wrong", 0.0)
    assert throttle.is_known_bad("wrong", 59.0)
    assert not throttle.is_known_bad("wrong", 61.0)
    assert not throttle.is_known_bad("other", 1.0)
    assert b"wrong" not in b"".join(throttle._bad_credentials)

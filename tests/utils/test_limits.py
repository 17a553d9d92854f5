"""Rate limits and counters of connections."""

from django_cocobase_realtime.utils.limits import (
    ConnectionCounters,
    CounterKey,
    PerMinute,
    TokenBucket,
)


def test_token_bucket_refills():
    bucket = TokenBucket((2, 3), now=0.0)
    assert [bucket.acquire(0.0) for _ in range(3)] == [0, 0, 0]
    assert 0 < bucket.acquire(0.0) <= 501
    assert bucket.acquire(0.5) == 0
    assert bucket.acquire(0.5) > 0
    assert [bucket.acquire(100.0) for _ in range(4)][:3] == [0, 0, 0]
    assert bucket.acquire(100.0) > 0


def test_per_minute_counter_resets():
    counter = PerMinute(2)
    assert [counter.exceeded(t) for t in (0.0, 1.0, 2.0)] == [False, False, True]
    assert not counter.exceeded(61.5)


def test_connection_counters_remove_entries_at_zero():
    counters = ConnectionCounters()
    counters.increment(CounterKey.ADDRESS, "a")
    counters.increment(CounterKey.ADDRESS, "a")
    counters.increment(CounterKey.USER, "a")
    assert counters.count(CounterKey.ADDRESS, "a") == 2
    counters.decrement(CounterKey.ADDRESS, "a")
    counters.decrement(CounterKey.ADDRESS, "a")
    assert counters.count(CounterKey.ADDRESS, "a") == 0
    assert counters.count(CounterKey.USER, "a") == 1
    assert len(counters._counts) == 1

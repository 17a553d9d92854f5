from django_cocobase_realtime.utils.limits import (
    ConnectionCounters,
    CounterKey,
    PerMinute,
    TokenBucket,
)


def test_a_bucket_refills():
    bucket = TokenBucket((2, 3), now=0.0)
    assert [bucket.acquire(0.0) for _ in range(3)] == [0, 0, 0]
    assert 0 < bucket.acquire(0.0) <= 501
    assert bucket.acquire(0.5) == 0
    assert bucket.acquire(0.5) > 0
    assert [bucket.acquire(100.0) for _ in range(4)][:3] == [0, 0, 0]
    assert bucket.acquire(100.0) > 0


def test_per_minute():
    counter = PerMinute(2)
    assert [counter.exceeded(t) for t in (0.0, 1.0, 2.0)] == [False, False, True]
    assert not counter.exceeded(61.5)


def test_caps_forget_who_is_gone():
    caps = ConnectionCounters()
    caps.increment(CounterKey.ADDRESS, "a")
    caps.increment(CounterKey.ADDRESS, "a")
    caps.increment(CounterKey.USER, "a")
    assert caps.count(CounterKey.ADDRESS, "a") == 2
    caps.decrement(CounterKey.ADDRESS, "a")
    caps.decrement(CounterKey.ADDRESS, "a")
    assert caps.count(CounterKey.ADDRESS, "a") == 0
    assert caps.count(CounterKey.USER, "a") == 1
    assert len(caps._counts) == 1

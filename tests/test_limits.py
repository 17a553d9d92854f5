from django_cocobase_realtime.utils.limits import Cap, Caps, PerMinute, TokenBucket


def test_a_bucket_refills():
    bucket = TokenBucket((2, 3), now=0.0)
    assert [bucket.take(0.0) for _ in range(3)] == [0, 0, 0]
    assert 0 < bucket.take(0.0) <= 501
    assert bucket.take(0.5) == 0
    assert bucket.take(0.5) > 0
    assert [bucket.take(100.0) for _ in range(4)][:3] == [0, 0, 0]
    assert bucket.take(100.0) > 0


def test_per_minute():
    counter = PerMinute(2)
    assert [counter.exceeded(t) for t in (0.0, 1.0, 2.0)] == [False, False, True]
    assert not counter.exceeded(61.5)


def test_caps_forget_who_is_gone():
    caps = Caps()
    caps.take(Cap.ADDRESS, "a")
    caps.take(Cap.ADDRESS, "a")
    caps.take(Cap.USER, "a")
    assert caps.count(Cap.ADDRESS, "a") == 2
    caps.release(Cap.ADDRESS, "a")
    caps.release(Cap.ADDRESS, "a")
    assert caps.count(Cap.ADDRESS, "a") == 0
    assert caps.count(Cap.USER, "a") == 1
    assert len(caps._counts) == 1

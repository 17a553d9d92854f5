"""Ordered sets that store a single item without a container."""

from hypothesis import given
from hypothesis import strategies as st

from django_cocobase_realtime.utils.small_set import added, items, length, removed


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4))))
def test_small_set_equals_keys_of_dictionary(steps):
    small_set, expected = None, {}
    for adds, item in steps:
        if adds:
            small_set = added(small_set, item)
            expected[item] = None
        else:
            small_set = removed(small_set, item)
            expected.pop(item, None)
        assert list(items(small_set)) == list(expected)
        assert length(small_set) == len(expected)
        assert (small_set is None) == (not expected)
        assert isinstance(small_set, dict) == (len(expected) > 1)

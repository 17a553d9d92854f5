"""Sets of mostly one are sets."""

from hypothesis import given
from hypothesis import strategies as st

from django_cocobase_realtime.utils.small_set import added, items, length, removed


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4))))
def test_they_hold_what_a_dictionary_holds_in_its_order(steps):
    held, expected = None, {}
    for joins, item in steps:
        if joins:
            held = added(held, item)
            expected[item] = None
        else:
            held = removed(held, item)
            expected.pop(item, None)
        assert list(items(held)) == list(expected)
        assert length(held) == len(expected)
        assert (held is None) == (not expected)
        assert isinstance(held, dict) == (len(expected) > 1)

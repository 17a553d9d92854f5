"""Sets of mostly one are sets."""

from hypothesis import given
from hypothesis import strategies as st

from django_cocobase_realtime.utils.small_set import each, size, with_item, without


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4))))
def test_they_hold_what_a_dictionary_holds_in_its_order(steps):
    held, expected = None, {}
    for joins, item in steps:
        if joins:
            held = with_item(held, item)
            expected[item] = None
        else:
            held = without(held, item)
            expected.pop(item, None)
        assert list(each(held)) == list(expected)
        assert size(held) == len(expected)
        assert (held is None) == (not expected)
        assert isinstance(held, dict) == (len(expected) > 1)

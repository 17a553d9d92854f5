"""The differences between two lists, which clients apply without comparing anything."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_cocobase_realtime.live_queries.differences import differences


class Item(NamedTuple):
    id: int
    content: int


lists = st.lists(
    st.builds(Item, st.integers(0, 12), st.integers(0, 2)), max_size=12, unique_by=lambda i: i.id
).map(tuple)


def difference(old, new):
    return differences(old, new, lambda one, other: one.content == other.content)


def spliced(old, new, changes):
    """Return the old list after a client has applied the changes."""
    gone = {old[index].id for index in changes.remove}
    items = [item for item in old if item.id not in gone]
    for index in changes.insert:
        assert index <= len(items)
        items.insert(index, new[index])
    return tuple(items)


@given(lists, lists)
def test_the_new_list_results(old, new):
    changes = difference(old, new)
    assert spliced(old, new, changes) == new
    assert bool(changes) == (old != new)


@given(lists, st.data())
def test_one_move_is_one_removal_and_one_insertion(old, data):
    if not old:
        return
    source = data.draw(st.integers(0, len(old) - 1))
    target = data.draw(st.integers(0, len(old) - 1))
    items = list(old)
    items.insert(target, items.pop(source)._replace(content=9))
    changes = difference(old, tuple(items))
    assert changes == ([source], [target])


@pytest.mark.parametrize("size", [1, 1000, 5000])
def test_long_lists(size):
    old = tuple(Item(n, 0) for n in range(size))
    new = (*old[1 : size // 2], Item(-1, 0), *old[size // 2 :])
    changes = difference(old, new)
    assert spliced(old, new, changes) == new
    assert len(changes.remove) == (1 if size > 1 else 0)
    assert len(changes.insert) == 1

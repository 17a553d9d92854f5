"""The index of substrings: finds all matching filters and checks few others."""

from hypothesis import given
from hypothesis import strategies as st

from django_cocobase_realtime.filters import FieldSpec, FilterIndex, Kind, Row, parse
from django_cocobase_realtime.filters.index.substrings import MAX_SEARCHED, SubstringIndex

needles = st.text("abcß\U0001f600", max_size=5)


@given(st.lists(st.tuples(needles, st.booleans()), max_size=30), st.text("abcß\U0001f600"))
def test_index_finds_indexed_substrings_that_occur(drawn, text):
    texts = SubstringIndex()
    grams = [texts.add(number, needle) for number, (needle, _) in enumerate(drawn)]
    remaining = {
        number: needle for number, (needle, discarded) in enumerate(drawn) if not discarded
    }
    for number, gram in enumerate(grams):
        if number not in remaining:
            texts.discard(number, gram)
    found = texts.occurring_in(text)
    assert len(found) == len(set(found))
    assert {n for n, needle in remaining.items() if needle in text} <= set(found) <= set(remaining)
    for number in remaining:
        texts.discard(number, grams[number])
    assert not texts


SCHEMA = {name: FieldSpec(name, Kind.TEXT) for name in ("title", "project")}


def test_event_checks_only_substrings_that_may_occur():
    index = FilterIndex()
    filters = {n: {"title_icontains": f"Class {n:05}", "project": "default"} for n in range(1000)}
    filters |= {
        "start": {"title_startswith": "POST", "project": "default"},
        "end": {"title_endswith": "77.", "project": "default"},
        "other end": {"title_endswith": "78.", "project": "default"},
        "short": {"title_contains": "P", "project": "default"},
        "any": {"title_contains": "", "project": "default"},
        "elsewhere": {"title_contains": "post", "project": "other"},
    }
    parsed = {name: parse(filter, SCHEMA) for name, filter in filters.items()}
    for name, filter in parsed.items():
        index.add(name, filter)
    assert (
        sum(len(grams) for grams in index._substrings["title",]._trigrams.values()) > MAX_SEARCHED
    )
    row = Row({"title": "Post of class 00077.", "project": "default"}, SCHEMA)
    assert set(index.matching(row)) == {77, "start", "end", "short", "any"}
    assert len(index.candidates(row)) < 40
    assert index.matching(Row({"title": None, "project": "default"}, SCHEMA)) == []
    for name, filter in parsed.items():
        index.discard(name, filter)
    assert index._substrings == {}
    assert index._buckets == {}

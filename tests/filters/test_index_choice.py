"""Which of several conditions the index uses: by the number of candidates, not by time."""

import random

import pytest

from django_cocobase_realtime.filters import FieldSpec, FilterIndex, Kind, Row, parse

NAMES = ("project", "status", "owner")
SCHEMA = {name: FieldSpec(name, Kind.INTEGER) for name in NAMES}
FILTERS = 1000
PROJECTS = 10_000


def mean_candidates(make_filter):
    """Return the mean number of candidates for rows of random projects and owners."""
    rng = random.Random(1)
    index = FilterIndex()
    for number in range(FILTERS):
        index.add(number, parse(make_filter(rng, number), SCHEMA, trusted=True))
    counts = []
    for _ in range(50):
        image = {"project": rng.randrange(PROJECTS), "status": 1, "owner": rng.randrange(FILTERS)}
        counts.append(len(index.candidates(Row(image, SCHEMA))))
    return sum(counts) / len(counts)


def projects(rng, number=50, total=PROJECTS):
    return {"in": rng.sample(range(total), number)}


@pytest.mark.parametrize("number", [3, 50, 200])
def test_list_is_preferred_to_value_that_all_filters_require(number):
    least = FILTERS * number / PROJECTS
    for make_filter in (
        lambda rng, n: {"project": projects(rng, number), "status": 1},
        lambda rng, n: {"status": 1, "project": projects(rng, number)},
    ):
        # the first filters are stored under the status, until that value proves to be frequent
        assert mean_candidates(make_filter) <= 1.5 * least + 20


def test_own_value_is_preferred_to_list():
    assert mean_candidates(lambda rng, n: {"owner": n, "project": projects(rng)}) <= 25


def test_rare_value_is_preferred_to_lists_that_overlap():
    def make_filter(rng, number):
        return {"owner": number % 250, "project": projects(rng, 50, total=60)}

    assert mean_candidates(make_filter) <= 25

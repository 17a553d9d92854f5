"""Filters at the limits of clients are refused, or the database evaluates them like the predicate.

An error of the database would close the connection with a code after which the client sends the
same filter again, endlessly.
"""

import json

import pytest
from django.db.models import F, Q

from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.delivery.query import AuthorizedQuery
from django_cocobase_realtime.delivery.snapshot import DocumentReader, select_keys
from django_cocobase_realtime.delivery.subscription import Subscription, SubscriptionRequest
from django_cocobase_realtime.filters import FilterLimits, InvalidFilter, parse
from django_cocobase_realtime.filters.order import BY_KEY
from django_cocobase_realtime.filters.orm import MAX_CHAIN, to_q
from django_cocobase_realtime.filters.sql import TextIsIn
from tests.app.models import Everything

pytestmark = pytest.mark.django_db

DEEP = {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": {"a": 1}}}}}}}}}}}}
PATH = "json" + ".a" * 12
MODULUS = 2**61 - 1
ROWS = [
    {"text": "", "json": None},
    {
        "text": "a" * 20_000,
        "char": "%a%",
        "big": 2**63 - 1,
        "integer": 5,
        "small": 1,
        "json": DEEP,
        "slug": "a_b",
        "uuid": "0" * 32,
        "ip": "1.2.3.4",
        "decimal": "1.5",
        "date": "2026-01-02",
        "moment": "2026-01-02T10:00:00Z",
        "time": "10:00",
    },
    {"text": "%_\\'\"$$", "json": ["a", 1, True, {"a": 1}], "char": "\\", "float": 1e308},
]


def lists(name, value, operator="in"):
    """Return a filter with 16 lists of 100 values."""
    return {
        "$or": [
            {name: {operator: [value(part * 100 + n) for n in range(100)]}} for part in range(16)
        ]
    }


FILTERS = {
    "integers": lists("integer", lambda n: n),
    "integers of 64 bits": lists("integer", lambda n: str(2**62 + n)),
    "small integers": lists("small", lambda n: n * 1000, "notin"),
    "big integers": lists("big", lambda n: str(2**63 - 1 - n)),
    "keys": lists("id", lambda n: str(2**62 + n)),
    "decimals": lists("decimal", lambda n: f"{n}.{'5' * 300}"),
    "floats": lists("float", lambda n: 1e308 if n == 7 else -n * 1e300),
    "UUIDs": lists("uuid", lambda n: f"{n * MODULUS:032x}"),
    "addresses": lists("ip", lambda n: f"::ffff:1.2.3.{n % 256}"),
    "dates": lists("date", lambda n: f"{n + 1:04}-01-02"),
    "moments": lists("moment", lambda n: f"{n + 1:04}-01-02T10:00:00+00:00", "notin"),
    "texts": lists("text", lambda n: "%_" * 10 + str(n)),
    "long texts": {"text_in": ["a" * 20_000, "b" * 20_000]},
    "paths": {f"{PATH}.b{n}": {"isnull": True} for n in range(4)} | {PATH: {"in": [*range(100)]}},
    "values at a path": lists(PATH, lambda n: n if n % 2 else str(n), "notin"),
    "wildcards": {"text": {"contains": "%a" * 10_000}, "char_startswith": "%a%"},
    "many wildcards": {"$or": [{"text_contains": "%a%" * n} for n in range(1, 16)]},
    "the end": {"text_endswith": "a" * 19_999, "slug_endswith": "_B"},
    "quotes": {"[or]text_contains": "\\'\"$$", "[or]char": "\\", "[or]json_contains": "%_\\'"},
    "slow search": {"text_contains": "a" * 49 + "b" + "a" * 50},
    "nesting": {"$not": {"$or": [{"integer_gt": 2**70}, {"decimal_lt": "-1e399"}]}},
    "many fields": {"text__or__char__or__slug__or__email__or__url__or__file_contains": "%"},
    "everything negated": {
        "$not": {f"{name}_isnull": True for name in ("date", "time", "ip", "uuid", "json")}
    },
    "ranges": {
        "date_between": ["0001-01-01", "9999-12-31"],
        "integer_between": [-(2**70), 2**70],
        "moment_between": ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"],
        "decimal_between": ["-1e399", "1e399"],
        "small_gte": -(10**6),
        "time_lte": "23:59:59",
    },
    "members": {"$or": [{"json_contains": n} for n in range(16)]},
    "a large number": {"$or": [{"json_contains": 1e308}, {"json.a_lt": 1e-320}, {"float": 1e308}]},
}


@pytest.mark.parametrize("name", FILTERS)
def test_snapshot_of_the_largest_filters(name):
    collection = registry.get("everything")
    for row in ROWS:
        Everything.objects.create(**row)
    for given in (FILTERS[name], {"$not": FILTERS[name]}):
        assert len(json.dumps(given)) < 65_536 * 16
        try:
            filter = parse(given, collection.schema, limits=FilterLimits(depth=4))
        except InvalidFilter:
            continue
        query = AuthorizedQuery(filter, ("id",))
        subscription = Subscription(None, SubscriptionRequest("s", "everything"), query)
        selected, _ = select_keys(collection, subscription, BY_KEY, 100)
        reader = DocumentReader(collection, subscription, selected)
        documents = [json.loads(text) for text in reader.read(10**7)]
        assert [document["id"] for document in documents] == [str(key) for key in selected.keys]
        codec = collection.codec
        images = {row["id"]: codec.image(row) for row in Everything.objects.values(*codec.attnames)}
        expected = {pk for pk, image in images.items() if filter.matches(collection.row(image))}
        assert set(selected.keys) == expected


@pytest.mark.timeout(300)  # seconds on an idle machine, minutes on a busy one
@pytest.mark.parametrize("key", ["$or", "$and"])
def test_filter_of_the_project_with_thousands_of_parts(key):
    row = Everything.objects.create(integer=5, small=3)
    collection = registry.get("everything")
    parts = [{"integer": 5, "small_ne": n} for n in range(10, MAX_CHAIN * MAX_CHAIN // 10 + 10)]
    for given, matches in ((parts, True), ([*parts, {"small": 4}], key == "$or")):
        filter = parse({key: given}, collection.schema, trusted=True)
        found = Everything.objects.filter(to_q(filter, Everything, "default"))
        assert list(found.values_list("pk", flat=True)) == ([row.pk] if matches else [])
        found = Everything.objects.filter(to_q(~filter, Everything, "default"))
        assert found.exists() is not matches


def test_many_texts_of_a_column_with_a_collation():
    for text in ("a", "B", "ä"):
        Everything.objects.create(text=text)
    values = [f"text {n}" for n in range(2000)]
    for sought in (["a", "b"], ["B"], ["Ä", "ä"]):
        found = Everything.objects.filter(Q(TextIsIn(F("text"), [*values, *sought])))
        expected = sorted({"a", "B", "ä"} & set(sought))
        assert sorted(found.values_list("text", flat=True)) == expected

"""The table of operators: every backend has what it needs, and one entry adds an operator."""

import pytest

from django_cocobase_realtime.filters import FilterIndex, InvalidFilter, Row, parse
from django_cocobase_realtime.filters.operators import (
    OPERATORS,
    TEXTUAL,
    Operator,
    Shorthand,
)
from django_cocobase_realtime.filters.orm import SQL, _search_sql, to_q
from django_cocobase_realtime.filters.schema import Kind
from django_cocobase_realtime.filters.sql import jsonb_matches
from tests.app.models import Everything
from tests.filters import strategies
from tests.filters.test_extreme_values import CODEC, SCHEMA

OPERANDS = {
    "value": 5,
    "ordered_value": 5,
    "ordered_pair": (5, 7),
    "values": (5,),
    "text": "a",
    "text_or_member": "a",
    "boolean": True,
}


def test_every_operator_has_sql():
    operators = {entry for entry in OPERATORS.values() if isinstance(entry, Operator)}
    missing = sorted(operator.name for operator in operators - SQL.keys())
    assert not missing, f"orm.SQL has no entry for {missing}"
    unused = sorted(operator.name for operator in SQL.keys() - operators)
    assert not unused, f"orm.SQL has entries for {unused}, which are not in operators.OPERATORS"


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_compiles(name):
    entry = OPERATORS[name]
    assert entry.name == name
    expanded = list(entry.expand(OPERANDS[entry.operand]))
    assert expanded
    for operator, operand in expanded:
        assert OPERATORS[operator.name] is operator
        assert entry.kinds.kinds <= operator.kinds.kinds
        test = operator.compile(("text",), Kind.TEXT, operand)
        assert test(Row({"text": None}, SCHEMA)) is (name == "isnull")


def test_every_operator_is_drawn_by_property_tests():
    drawn = {*strategies.EQUALITY, *strategies.ORDERED, *strategies.TEXTUAL, "between"}
    assert drawn == set(OPERATORS), "draw it in tests/filters/strategies.py"


@pytest.mark.django_db
def test_entry_and_its_sql_add_an_operator(monkeypatch):
    def compile_same(ref, kind, operand):
        return lambda row: row.folded(ref) == operand

    def same_sql(text, params, sought, position):
        return f"{text} = %s", [*params, sought]

    same = Operator("same", "text", TEXTUAL, compile_same, substring=True)
    monkeypatch.setitem(OPERATORS, "same", same)
    alias = Shorthand("iexact", "text", TEXTUAL, lambda text: [(same, text)])
    monkeypatch.setitem(OPERATORS, "iexact", alias)
    monkeypatch.setitem(SQL, same, _search_sql(same_sql, jsonb_matches(same_sql)))

    for text in strategies.TEXTS:
        Everything.objects.create(text=text, json={"a": text})
    images = {row["id"]: CODEC.image(row) for row in Everything.objects.values(*CODEC.attnames)}
    for filters in (
        {"text_same": "AB"},
        {"text__iexact": "Ä"},
        {"json.a": {"same": "b A"}},
        {"$not": {"json.a_same": "B"}, "text_contains": "b"},
    ):
        filter = parse(filters, SCHEMA)
        expected = {pk for pk, image in images.items() if filter.matches(Row(image, SCHEMA))}
        assert expected
        found = Everything.objects.filter(to_q(filter, Everything, "default"))
        assert set(found.values_list("pk", flat=True)) == expected
        index = FilterIndex()
        index.add("item", filter)
        assert {pk for pk, i in images.items() if index.matching(Row(i, SCHEMA))} == expected
    assert "same" in parse({"text_iexact": "A"}, SCHEMA).canonical()
    for filters, message in (
        ({"integer_same": "5"}, "same is for text"),
        ({"text_same": 5}, "same takes a text"),
        ({"text": {"equals": "a"}}, "'same', 'iexact'"),
    ):
        with pytest.raises(InvalidFilter, match=message):
            parse(filters, SCHEMA)

"""The structure of the package: what import-linter's contracts do not express."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import grimp
import pytest

PACKAGE = "django_cocobase_realtime"
FOLDER = Path(__file__).parent.parent / PACKAGE
MODULES = sorted(p for p in FOLDER.rglob("*.py") if "migrations" not in p.parts)
MAX_LINES = 400


def find_cycle(imports: dict[str, set[str]]) -> list[str] | None:
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return None


def test_cycle_found_if_two_modules_import_each_other():
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) is not None
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": set()}) is None


def test_modules_have_no_import_cycle():
    """Imports under TYPE_CHECKING and inside functions count."""
    graph = grimp.build_graph(PACKAGE, exclude_type_checking_imports=False, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imports) > 150
    assert find_cycle(imports) is None


def chains(source: str) -> list[str]:
    """Return expressions of the form ``self._x.y.z``."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
            inner = node.value.value
            if (
                isinstance(inner, ast.Attribute)
                and inner.attr.startswith("_")
                and isinstance(inner.value, ast.Name)
                and inner.value.id == "self"
            ):
                found.append(ast.unparse(node))
    return found


def test_chain_found_in_source():
    assert chains("self._hub.groups.release(name)") == ["self._hub.groups.release"]
    assert chains("self._hub.release(name)\nself.hub.groups.release(name)") == []


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(FOLDER)))
def test_object_does_not_reach_through_its_parts(path):
    assert chains(path.read_text()) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(FOLDER)))
def test_module_is_short_enough_to_be_one_idea(path):
    assert len(path.read_text().splitlines()) <= MAX_LINES

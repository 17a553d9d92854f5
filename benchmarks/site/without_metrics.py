"""Removes the statements that count metrics from the package while its modules are loaded."""

from __future__ import annotations

import ast
import importlib.machinery
import sys

PACKAGE = "django_cocobase_realtime"
# what statements that count begin with; counts that are used elsewhere are not here
METRICS = ("metrics.", "self._waits.observe")
# the same, in these modules only
LOCAL = {
    f"{PACKAGE}.delivery.topic": ("delivered ",),
    f"{PACKAGE}.delivery.table": ("self.size += ", "self.size -= "),
}


class Remover(ast.NodeTransformer):
    """Removes statements by their first words."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self._words = words
        # the removed statements
        self.removed: list[str] = []

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if not isinstance(node, ast.Module) and getattr(node, "body", None) == []:
            node.body = [ast.Pass()]  # type: ignore[attr-defined]
        return node

    def _visit_statement(self, node: ast.stmt) -> ast.stmt | None:
        text = ast.unparse(node)
        if not text.startswith(self._words):
            return node
        self.removed.append(text)
        return None

    visit_Expr = visit_AugAssign = visit_Assign = _visit_statement  # noqa: N815 - names of ast


def remove_counts(name: str, tree: ast.Module) -> list[str]:
    """Remove the statements that count from a module; return them."""
    remover = Remover(METRICS + LOCAL.get(name, ()))
    remover.visit(tree)
    ast.fix_missing_locations(tree)
    return remover.removed


class Loader(importlib.machinery.SourceFileLoader):
    """Loads a module without the statements that count, and without a cache."""

    def get_code(self, fullname: str):
        path = self.get_filename(fullname)
        tree = ast.parse(self.get_data(path), path)
        if fullname != f"{PACKAGE}.metrics":
            remove_counts(fullname, tree)
        return compile(tree, path, "exec", dont_inherit=True)


class Finder:
    """Finds the modules of the package."""

    @staticmethod
    def find_spec(fullname: str, path=None, target=None):
        if fullname.split(".")[0] != PACKAGE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = Loader(fullname, spec.loader.path)
        return spec


def install() -> None:
    """Load the package without counts from now on."""
    assert PACKAGE not in sys.modules, "The package is loaded already."
    sys.meta_path.insert(0, Finder)

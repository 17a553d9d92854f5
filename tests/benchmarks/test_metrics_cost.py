"""The benchmark of metrics removes all statements that count, and no others."""

import ast
from pathlib import Path

from benchmarks.site.without_metrics import PACKAGE, remove_counts

FOLDER = Path(__file__).parents[2] / PACKAGE


def test_all_counts_are_removed():
    removed = {}
    for path in FOLDER.rglob("*.py"):
        name = ".".join(path.relative_to(FOLDER.parent).with_suffix("").parts)
        tree = ast.parse(path.read_text())
        statements = remove_counts(name, tree)
        compile(tree, path, "exec")
        if name not in (f"{PACKAGE}.views.exposition", f"{PACKAGE}.metrics"):
            for line in ast.unparse(tree).splitlines():
                assert not line.strip().startswith("metrics."), name
        if statements:
            removed[name.removeprefix(f"{PACKAGE}.")] = statements
    assert {"delivery.topic", "delivery.table", "capture.recorder", "utils.workers"} <= set(removed)
    assert "delivered = len(single)" in removed["delivery.topic"]
    assert removed["delivery.table"] == ["self.size += 1", "self.size -= 1"]
    others = ("metrics.", "delivered ", "self.size ", "self._waits.observe")
    for statements in removed.values():
        assert all(text.startswith(others) for text in statements)

"""Find Node and npm for the tests that need them."""

from __future__ import annotations

from .programs import require_program


def require_node(tool: str = "node") -> str:
    """Return the path of Node, or another tool. Without it, skip the test; in CI, fail it."""
    return require_program(tool)

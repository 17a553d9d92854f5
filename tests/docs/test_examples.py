"""The examples of the documentation are valid code and import existing names."""

import ast
import importlib
import json
import subprocess

import pytest

from tests.support.blocks import PAGES, ROOT, code_blocks
from tests.support.node import require_node


def examples(language):
    return [
        pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")
        for page in PAGES
        for number, block in enumerate(code_blocks(page, language))
    ]


def parse(code):
    try:
        return compile(code, "<docs>", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError:
        # the example shows entries of a dictionary
        return compile(f"{{{code}}}", "<docs>", "eval", ast.PyCF_ONLY_AST)


@pytest.mark.parametrize("code", examples("python"))
def test_python_example_parses_and_imports_existing_names(code):
    for node in ast.walk(parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("django_cocobase"):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, name.name) for name in node.names)


@pytest.mark.parametrize("text", examples("json"))
def test_json_example_is_valid(text):
    at, decoder = 0, json.JSONDecoder()
    while text[at:].strip():  # one or several frames
        _, at = decoder.raw_decode(text, at + len(text[at:]) - len(text[at:].lstrip()))


@pytest.mark.parametrize("code", examples("js"))
def test_javascript_example_parses(code, tmp_path):
    node = require_node()
    file = tmp_path / "example.mjs"
    file.write_text(code)
    completed = subprocess.run([node, "--check", file], capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr

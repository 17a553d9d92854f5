"""Every example of the documentation is code, and names what there is."""

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


def parsed(code):
    try:
        return compile(code, "<docs>", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError:
        return compile(f"{{{code}}}", "<docs>", "eval", ast.PyCF_ONLY_AST)  # entries of a setting


@pytest.mark.parametrize("code", examples("python"))
def test_python(code):
    for node in ast.walk(parsed(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("django_cocobase"):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, name.name) for name in node.names)


@pytest.mark.parametrize("text", examples("json"))
def test_json(text):
    at, decoder = 0, json.JSONDecoder()
    while text[at:].strip():  # one frame, or several below each other
        _, at = decoder.raw_decode(text, at + len(text[at:]) - len(text[at:].lstrip()))


@pytest.mark.parametrize("code", examples("js"))
def test_javascript(code, tmp_path):
    node = require_node()
    file = tmp_path / "example.mjs"
    file.write_text(code)
    done = subprocess.run([node, "--check", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

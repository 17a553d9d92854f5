"""The files of this repository that the demo shows: its documentation and the demo's own code."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from posixpath import dirname, join, normpath
from textwrap import dedent

from django.urls import reverse
from django.utils.html import conditional_escape, format_html
from django.utils.safestring import SafeString

ROOT = Path(__file__).resolve().parent.parent.parent
BOARD = "demo_project/board"
SCRIPTS = f"{BOARD}/static/board"
# heading -> how the paths in that group start
GROUPS = {
    "Start here": ("docs/tutorial.md", "docs/demo.md", "README.md"),
    "How-to guides": ("docs/how-to/",),
    "Reference": ("docs/reference/", "docs/glossary.md"),
    "Explanation": ("docs/explanation/", "docs/benchmarks.md"),
    "Code of this demo": ("demo_project/",),
}


@dataclass(frozen=True)
class Excerpt:
    """A block of a source file, read from that file so that it is the code that runs."""

    title: str
    path: str
    # the beginning of the block's first line, without its indentation
    first_line: str
    # the beginning of the line before which the excerpt ends, if that is not the block's end
    until: str | None = None

    @property
    def name(self):
        return self.path.rpartition("/")[2]

    @property
    def text(self):
        return read_block((ROOT / self.path).read_text(), self.first_line, self.until)


# name of a page's URL -> the excerpts that the page shows
EXCERPTS = {
    "board": (
        Excerpt("The setting that makes the model live", "demo_project/settings.py", '"tasks": {'),
        Excerpt("The list in the browser", f"{SCRIPTS}/card_board.js", "#watch(column) {"),
        Excerpt("The numbers of cards", f"{SCRIPTS}/card_board.js", "#count() {"),
        Excerpt("The model", f"{BOARD}/models.py", "class Task(", until="class Meta"),
        Excerpt("The view that moves a card", f"{BOARD}/views.py", "def move_task("),
        Excerpt("Renaming a user", f"{BOARD}/users.py", "def rename("),
    ),
    "chat": (
        Excerpt("The room's declaration", f"{BOARD}/realtime.py", "class Chat("),
        Excerpt("Joining the room in the browser", f"{SCRIPTS}/chat.js", "const room ="),
        Excerpt("The members, and who is typing", f"{SCRIPTS}/chat.js", "room.subscribe("),
        Excerpt("Sending a message", f"{SCRIPTS}/chat.js", "room.broadcast("),
    ),
    "reconnect": (
        Excerpt("Closing the connections", f"{BOARD}/reconnect.py", "def start_outage("),
        Excerpt("Changing the row", f"{BOARD}/change_generator.py", "def _make_change("),
        Excerpt("Watching the row in the browser", f"{SCRIPTS}/reconnect.js", "const watching ="),
        Excerpt("Counting what arrives", f"{SCRIPTS}/reconnect.js", "async function onEvent("),
    ),
    "load": (
        Excerpt("Changing the row", f"{BOARD}/change_generator.py", "def _make_change("),
        Excerpt("Watching it in the browser", f"{SCRIPTS}/load.js", "db.watchCollection("),
        Excerpt("Measuring the latency", f"{SCRIPTS}/load.js", "function onEvent("),
    ),
    "permissions": (
        Excerpt("Who may see which rows", f"{BOARD}/realtime.py", "class Parcels("),
        Excerpt("Changing a membership", f"{BOARD}/views.py", "def set_membership("),
        Excerpt("A client with a token", f"{SCRIPTS}/permissions.js", "const db ="),
        Excerpt("Its list of parcels", f"{SCRIPTS}/permissions.js", "const parcels ="),
    ),
}


def read_block(text, first_line, until=None):
    """Return the block that starts with ``first_line``, with its decorators, dedented.

    A block ends before the next line that is not indented more than its first line, but includes
    a closing bracket on that line. With ``until``, it ends before the line that starts with it.
    """
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.lstrip().startswith(first_line))
    indent = _indentation(lines[start])
    end = start + 1
    while end < len(lines) and (not lines[end].strip() or _indentation(lines[end]) > indent):
        if until and lines[end].lstrip().startswith(until):
            break
        end += 1
    if end < len(lines) and re.match(r"\s*[)\]}]", lines[end]):
        end += 1
    while start and lines[start - 1].lstrip().startswith("@"):
        start -= 1
    return dedent("\n".join(lines[start:end])).rstrip()


def _indentation(line):
    return len(line) - len(line.lstrip())


@cache
def list_files():
    """Return the titles of the files that may be shown, by their path in the repository."""
    docs = (path for path in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in path.parts)
    titles = {"README.md": "README", **{_relative(path): _heading(path) for path in docs}}
    for path in sorted((ROOT / "demo_project").rglob("*")):
        is_code = path.suffix in (".py", ".js", ".css", ".html") and path.stat().st_size
        if is_code and not {"var", "migrations"} & set(path.parts):
            titles[_relative(path)] = _relative(path).removeprefix("demo_project/")
    return titles


def group_files():
    """Return the groups of the list of files: heading -> path -> title."""
    titles = list_files()
    return {
        heading: {
            path: titles[path] for prefix in prefixes for path in titles if path.startswith(prefix)
        }
        for heading, prefixes in GROUPS.items()
    }


def _relative(path):
    return path.relative_to(ROOT).as_posix()


def _heading(path):
    for line in path.read_text().splitlines():
        if line.startswith("# "):
            return line[2:].replace("`", "")
    return path.name


def render(path):
    """Return the text of a file as HTML: escaped, with links where Markdown has links to files."""
    text = (ROOT / path).read_text()
    if not path.endswith(".md"):
        return conditional_escape(text)
    parts = re.split(r"(?<!!)\[([^\]\n]+)\]\(([^)\s#]+)(?:#[^)\s]*)?\)", text)
    html = [conditional_escape(parts[0])]
    for label, target, rest in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        html += [_link(path, label, target), conditional_escape(rest)]
    return SafeString("".join(html))


def _link(path, label, target):
    if target.startswith("https://"):
        url = target
    else:
        url = normpath(join(dirname(path), target))
        if url not in list_files():
            return conditional_escape(label)
        url = reverse("file", args=[url])
    return format_html('<a href="{}">{}</a>', url, label)

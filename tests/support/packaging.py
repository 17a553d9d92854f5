"""Check the wheel in a folder: its files, and its long description as a package index shows it.

python -m tests.support.packaging dist
"""

import re
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

from readme_renderer import markdown

PACKAGE = "django_cocobase_realtime"
REQUIRED_FILES = (
    "py.typed",
    "migrations/0001_initial.py",
    "management/commands/realtime_key.py",
    "static/django_cocobase_realtime/realtime.js",
    "static/django_cocobase_realtime/realtime.d.ts",
)
EXTERNAL = ("https://", "http://", "#")
"""Beginnings of addresses that lead somewhere from a page of a package index."""


def find_problems(wheel: Path) -> list[str]:
    """Return one line per problem of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        message = message_from_bytes(archive.read(metadata))
    return [*find_file_problems(names), *find_description_problems(message)]


def find_file_problems(names: list[str]) -> list[str]:
    """Return one line per missing or unexpected file."""
    problems = [f"missing: {name}" for name in REQUIRED_FILES if f"{PACKAGE}/{name}" not in names]
    sources = {str(path) for path in Path(PACKAGE).rglob("*.py") if "__pycache__" not in path.parts}
    problems += [f"missing: {name}" for name in sorted(sources - set(names))]
    for name in names:
        if not name.startswith((f"{PACKAGE}/", f"{PACKAGE.replace('-', '_')}-")):
            problems.append(f"does not belong: {name}")
        if "__pycache__" in name:
            problems.append(f"does not belong: {name}")
    return problems


def find_description_problems(metadata) -> list[str]:
    """Return one line per thing in the long description that an index cannot show.

    An index renders it without the files of the repository: a relative link leads to a page that
    does not exist, and a relative image is broken.
    """
    content_type = metadata.get("Description-Content-Type", "")
    if not content_type.startswith("text/markdown"):
        return [f"long description: the content type is {content_type!r}, not text/markdown"]
    text = metadata.get_payload(decode=True).decode()
    html = markdown.render(text)
    if not html:
        return ["long description: it cannot be rendered"]
    addresses = re.findall(r"\]\(([^)]*)", text) + re.findall(r'(?:href|src)="([^"]*)"', html)
    problems = [
        f"long description: {address!r} is relative"
        for address in dict.fromkeys(addresses)
        if not address.startswith(EXTERNAL)
    ]
    if "<h1" not in html or "<pre" not in html:
        problems.append("long description: the heading or the code blocks are lost")
    return problems


if __name__ == "__main__":
    (wheel,) = Path(sys.argv[1]).glob("*.whl")
    problems = find_problems(wheel)
    print("\n".join(problems) or f"{wheel.name}: the files and the long description are complete.")
    sys.exit(bool(problems))

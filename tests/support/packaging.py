"""Check that the wheel contains the files that users need, and no others.

python -m tests.support.packaging dist
"""

import sys
import zipfile
from pathlib import Path

PACKAGE = "django_cocobase_realtime"
REQUIRED_FILES = (
    "py.typed",
    "migrations/0001_initial.py",
    "management/commands/realtime_key.py",
    "static/django_cocobase_realtime/realtime.js",
    "static/django_cocobase_realtime/realtime.d.ts",
)


def find_problems(wheel: Path) -> list[str]:
    """Return one line per missing or unexpected file."""
    names = zipfile.ZipFile(wheel).namelist()
    problems = [f"missing: {name}" for name in REQUIRED_FILES if f"{PACKAGE}/{name}" not in names]
    sources = {str(path) for path in Path(PACKAGE).rglob("*.py") if "__pycache__" not in path.parts}
    problems += [f"missing: {name}" for name in sorted(sources - set(names))]
    for name in names:
        if not name.startswith((f"{PACKAGE}/", f"{PACKAGE.replace('-', '_')}-")):
            problems.append(f"does not belong: {name}")
        if "__pycache__" in name:
            problems.append(f"does not belong: {name}")
    return problems


if __name__ == "__main__":
    (wheel,) = Path(sys.argv[1]).glob("*.whl")
    problems = find_problems(wheel)
    print("\n".join(problems) or f"{wheel.name} contains the expected files.")
    sys.exit(bool(problems))

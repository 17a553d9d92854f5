"""``python -m tests.support.packaging dist``: the wheel has what users need, and nothing else."""

import sys
import zipfile
from pathlib import Path

PACKAGE = "django_cocobase_realtime"
NEEDED = (
    "py.typed",
    "migrations/0001_initial.py",
    "management/commands/realtime_key.py",
    "static/django_cocobase_realtime/realtime.js",
    "static/django_cocobase_realtime/realtime.d.ts",
)


def problems(wheel: Path) -> list[str]:
    names = zipfile.ZipFile(wheel).namelist()
    found = [f"missing: {name}" for name in NEEDED if f"{PACKAGE}/{name}" not in names]
    sources = {str(path) for path in Path(PACKAGE).rglob("*.py") if "__pycache__" not in path.parts}
    found += [f"missing: {name}" for name in sorted(sources - set(names))]
    for name in names:
        if not name.startswith((f"{PACKAGE}/", f"{PACKAGE.replace('-', '_')}-")):
            found.append(f"does not belong: {name}")
        if "__pycache__" in name:
            found.append(f"does not belong: {name}")
    return found


if __name__ == "__main__":
    (wheel,) = Path(sys.argv[1]).glob("*.whl")
    found = problems(wheel)
    print("\n".join(found) or f"{wheel.name} holds what it should.")
    sys.exit(bool(found))

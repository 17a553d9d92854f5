"""What was measured, as JSON: with the command, the machine, and the versions."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"
PACKAGES = (
    *("django", "channels", "channels-redis", "redis", "daphne", "twisted", "autobahn"),
    *("uvicorn", "websockets", "djangochannelsrestframework", "msgspec", "psycopg"),
)


def machine() -> dict[str, Any]:
    """Processor, cores, memory, kernel, Python."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.partition(":")[2].strip() for line in info.splitlines() if "model name" in line]
    memory = Path("/proc/meminfo").read_text().split()[1] if info else "0"
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": len(models),
        "memory_gib": round(int(memory) / 2**20, 1),
        "kernel": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Of all that was measured."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    package = Path(__file__).parent / "peers" / "node_modules" / "socket.io" / "package.json"
    if package.exists():
        found["socket.io"] = json.loads(package.read_text())["version"]
        node = subprocess.run(["node", "--version"], capture_output=True, text=True)
        found["node"] = node.stdout.strip().lstrip("v")
    return found


def save(name: str, rows: list[dict[str, Any]], **about: Any) -> Path:
    """Write ``results/NAME.json``, over what was there."""
    FOLDER.mkdir(exist_ok=True)
    command = f"python -m benchmarks.{name} {' '.join(sys.argv[1:])}".strip()
    path = FOLDER / f"{name}.json"
    told = {
        "benchmark": name,
        "command": command,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "load": round(os.getloadavg()[1], 1),  # of the last five minutes, its own included
        "machine": machine(),
        "versions": versions(),
        **about,
        "rows": rows,
    }
    path.write_text(json.dumps(told, indent=1) + "\n")
    return path


def load(name: str) -> dict[str, Any] | None:
    """What was written last; None where nothing was."""
    path = FOLDER / f"{name}.json"
    found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return found

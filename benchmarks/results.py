"""Store results as JSON, with the command, the machine and the versions."""

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
    """Describe the processor, cores, memory, kernel and Python."""
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
    """Return the versions of the measured packages."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    package = Path(__file__).parent / "peers" / "node_modules" / "socket.io" / "package.json"
    if package.exists():
        versions["socket.io"] = json.loads(package.read_text())["version"]
        node = subprocess.run(["node", "--version"], capture_output=True, text=True)
        versions["node"] = node.stdout.strip().lstrip("v")
    return versions


def save(name: str, rows: list[dict[str, Any]], **about: Any) -> Path:
    """Write ``results/NAME.json``, replacing the previous results."""
    FOLDER.mkdir(exist_ok=True)
    command = f"python -m benchmarks.{name} {' '.join(sys.argv[1:])}".strip()
    path = FOLDER / f"{name}.json"
    result = {
        "benchmark": name,
        "command": command,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "load": round(os.getloadavg()[1], 1),  # average of five minutes, including the benchmark
        "machine": machine(),
        "versions": versions(),
        **about,
        "rows": rows,
    }
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def load(name: str) -> dict[str, Any] | None:
    """Return the last results, or None."""
    path = FOLDER / f"{name}.json"
    result: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return result

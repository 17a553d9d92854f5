"""CPU time and memory of a process tree, read from /proc (Linux)."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def process_tree(pid: int) -> list[int]:
    """Return the ids of the process and all its descendants."""
    pids = [pid]
    for member in pids:
        for task in Path(f"/proc/{member}/task").glob("*/children"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                pids += [int(child) for child in task.read_text().split()]
    return pids


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of the tree in seconds, to 10 ms.

    That of processes that have ended, and were waited for, is included.
    """
    total = 0
    # parents last: they have the time of a child that ends before it is read
    for member in reversed(process_tree(pid)):
        try:
            text = Path(f"/proc/{member}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            if member == pid:
                raise
            continue
        fields = text.rpartition(")")[2].split()
        # proc(5): utime, stime, cutime and cstime are fields 14 to 17; the name, which may have
        # spaces, is 2
        total += sum(map(int, fields[11:15]))
    return total / TICK


def rss_bytes(pid: int) -> int:
    """Return the resident memory of the tree in bytes."""
    return sum(
        int(Path(f"/proc/{p}/statm").read_text().split()[1]) * PAGE for p in process_tree(pid)
    )

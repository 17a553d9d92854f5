"""The plot in ``docs/benchmarks.md``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.tables import group_rows


def plot_fanout(result: dict[str, Any], path: Path) -> None:
    """Draw µs per delivery at the smallest number of subscribers as bars, one panel per server."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = [row for row in result["rows"] if "refused" not in row]
    size = min(row["subscribers"] for row in rows)
    panels = group_rows([row for row in rows if row["subscribers"] == size], "server")
    bars_per_panel = max(len(bars) for bars in panels.values())
    figure, axes = plt.subplots(
        1, len(panels), figsize=(7 * len(panels), 0.36 * bars_per_panel + 1.4), squeeze=False
    )
    for axis, ((server,), panel) in zip(axes[0], panels.items(), strict=True):
        ordered = sorted(panel, key=lambda row: -row["us_per_delivery"])
        names = [row["name"] for row in ordered]
        values = [row["us_per_delivery"] for row in ordered]
        colours = ["#0c7c59" if name.startswith("realtime") else "#9aa5b1" for name in names]
        bars = axis.barh(names, values, color=colours)
        axis.bar_label(bars, [f" {value:.1f}" for value in values], fontsize=8)
        axis.set_xscale("log")
        axis.set_xlim(1, max(values) * 2.5)
        axis.set_title(f"{server}: server CPU µs per delivery, {size:,} subscribers", fontsize=10)
        axis.tick_params(labelsize=8)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    machine = result["machine"]
    versions = ", ".join(
        f"{name} {result['versions'][name]}"
        for name in ("django", "channels", "uvicorn", "websockets", "daphne", "socket.io", "node")
        if name in result["versions"]
    )
    caption = f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, "
    figure.text(0.01, 0.01, caption + versions + f", {result['at'][:10]}", fontsize=7, color="#555")
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.savefig(path, dpi=110)

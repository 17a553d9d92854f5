"""``docs/benchmarks.md`` and its plot, out of the JSON in ``benchmarks/results``.

python -m benchmarks.report
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.common import say

DOCS = Path(__file__).parent.parent / "docs"
Rows = list[dict[str, Any]]

INTRO = """# Benchmarks

Measured by `make bench`, written by `python -m benchmarks.report`; do not edit. Every figure is a
command, and stands beside its peers' in the same run: read the ratios, not the microseconds.

The main figure is the server's CPU (user and system time of its process tree, out of `/proc`) a
delivery: it is shaken least by whatever else a machine does. A delivery is one event at one
socket, read and checked by number: lost, repeated and misdirected ones are counted in every run.
Subscribers are sockets of another process on the same machine (loopback, no TLS); nobody offers
permessage-deflate, so nothing is compressed, ours or theirs. Documents are about 250 bytes, frames
about 480. Each of our subscribers has an identity, a filter, a permission's mandatory filter, a
cursor and a bounded queue of its own. uvicorn runs with `--ws websockets-sansio`. A load average,
where one is given, is that of the last five minutes of the run: a benchmark's own server and
clients make it one to two, what is above that was other work on the same cores.
"""


def number(value: Any, form: str = "{:.1f}") -> str:
    """A figure, or a dash where there is none."""
    return "–" if value is None else form.format(value)


def table(head: Iterable[str], lines: Iterable[Iterable[Any]]) -> str:
    """A Markdown table."""
    head = list(head)
    rows = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    rows += ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]
    return "\n".join(rows) + "\n"


def faults(row: dict[str, Any]) -> str:
    """Lost / repeated / misdirected."""
    return " / ".join(str(row.get(each, 0)) for each in ("lost", "duplicates", "misdirected"))


def refusal(row: dict[str, Any], cells: int) -> list[str]:
    """A row that the server does not support."""
    return [row["name"], "not supported", *["–"] * (cells - 2)]


def groups(rows: Rows, *keys: str) -> dict[tuple[Any, ...], Rows]:
    """Rows by the values of some keys, in the order in which they came."""
    found: dict[tuple[Any, ...], Rows] = {}
    for row in rows:
        found.setdefault(tuple(row.get(key) for key in keys), []).append(row)
    return found


def fanout(told: dict[str, Any]) -> str:
    """One event to everybody."""
    parts = [
        "One event to all, the next once all have it; “burst” rows send "
        f"{told['burst']} at once. “plain is” says how many times as much a plain Channels "
        "consumer with the in-memory layer costs.\n\n![Fan-out](images/fanout.png)\n"
    ]
    head = ["", "µs CPU a delivery", "× raw loop", "plain is", "p99 ms", "lost/twice/astray"]
    for (server, size), rows in groups(told["rows"], "server", "subscribers").items():
        lines = [
            refusal(row, len(head))
            if "refused" in row
            else [
                row["name"],
                number(row["us_per_delivery"]),
                number(row.get("times_raw"), "{:.2f}"),
                number(row.get("plain_is_times"), "{:.1f}×"),
                number(row["p99_ms"]),
                faults(row),
            ]
            for row in rows
        ]
        parts.append(f"### {server}, {size:,} subscribers\n\n" + table(head, lines))
    return "\n".join(parts)


def filtered(told: dict[str, Any]) -> str:
    """One event to a few."""
    parts = [
        f"Each event matches {told['matches']} subscribers, whatever their number. Without the "
        "save: the change is handed to the hub, or to the peers' layer. The trigger alone, a "
        "datagram, is in every figure.\n"
    ]
    head = ["", "µs CPU an event", "plain is", "× 1,000's", "p99 ms", "lost/twice/astray"]
    for (server, size), rows in groups(told["rows"], "server", "subscribers").items():
        lines = [
            refusal(row, len(head))
            if "refused" in row
            else [
                row["name"],
                number(row["us_per_event"], "{:,.0f}"),
                number(row.get("plain_is_times"), "{:,.0f}×"),
                number(row.get("times_small"), "{:.2f}"),
                number(row["p99_ms"]),
                faults(row),
            ]
            for row in rows
        ]
        trigger = number(rows[0].get("trigger_us"), "{:.0f}")
        title = f"### {server}, {size:,} subscribers (the trigger alone: {trigger} µs)\n\n"
        parts.append(title + table(head, lines))
    return "\n".join(parts)


def steady(told: dict[str, Any]) -> str:
    """From commit to socket."""
    head = ["database", "server", "", "p50 ms", "p99 ms", "over the floor", "lost/twice/astray"]
    lines = [
        [
            row["database"],
            row["server"],
            row["name"],
            number(row["p50_ms"]),
            number(row["p99_ms"]),
            number(row["ms_over_floor"], "{:+.1f}"),
            faults(row),
        ]
        for row in told["rows"]
    ]
    first = told["rows"][0]
    about = f"{told['rate']:.0f} real saves a second to {first['subscribers']:,} subscribers. The "
    return about + "floor saves what nobody watches.\n\n" + table(head, lines)


def memory(told: dict[str, Any]) -> str:
    """Connections and subscriptions."""
    head = ["server", "", "number", "KiB each", "× raw", "idle CPU"]
    lines = [
        [
            row["server"],
            row["name"],
            f"{row.get('connections') or row.get('subscriptions'):,}",
            number(row["bytes_each"] / 1024, "{:.2f}"),
            number(row.get("times_raw"), "{:.2f}"),
            number(row.get("idle_cpu_percent"), "{:.1f}%"),
        ]
        for row in told["rows"]
    ]
    return "Resident memory of the server process; idle CPU as a share of one core.\n\n" + table(
        head, lines
    )


def stalled(told: dict[str, Any]) -> str:
    """One that does not read."""
    head = ["server", "", "p99 without → with", "ratio", "lost", "grew KiB (without)", "closed"]
    lines = [
        [
            row["server"],
            row["name"],
            f"{number(row['p99_without_ms'])} → {number(row['p99_with_ms'])} ms",
            number(row["ratio"], "{:.2f}"),
            row["lost"],
            f"{row['growth_kib']:.0f} ({row['growth_without_kib']:.0f})",
            row["code"] or "not",
        ]
        for row in told["rows"]
    ]
    about = "One of 100 clients stops reading; 16 kB events, so that buffers are full at once. "
    return about + "p99 is that of the other 99.\n\n" + table(head, lines)


def save_cost(told: dict[str, Any]) -> str:
    """What the log costs a save."""
    head = ["database", "", "bare µs", "signals", "triggers"]
    lines = [
        [
            row["database"],
            row["name"],
            number(row["bare_us"], "{:,.0f}"),
            number(row.get("signals"), "{:.2f}×"),
            number(row.get("triggers"), "{:.2f}×"),
        ]
        for row in told["rows"]
    ]
    return "Nobody listens; times the same save of a model that is not watched.\n\n" + table(
        head, lines
    )


def processes(told: dict[str, Any]) -> str:
    """Several servers."""
    head = ["layer", "server", "processes", "µs CPU a delivery", "× one", "deliveries/s", "× one"]
    head += ["Redis messages an event", "lost/twice"]
    lines = [
        [
            row["layer"],
            row["server"],
            f"{row['processes']}, real saves" if "saves" in row else row["processes"],
            number(row.get("us_per_delivery")),
            number(row.get("times_one"), "{:.2f}"),
            number(row.get("per_second"), "{:,.0f}"),
            number(row.get("throughput_times_one"), "{:.2f}"),
            number(row["messages_per_event"], "{:.2f}"),
            f"{row['lost']} / {row['duplicates']}",
        ]
        for row in told["rows"]
    ]
    about = f"On {told['machine']['cores']} cores, which the load generator shares: throughput can "
    return about + "grow only where there are more.\n\n" + table(head, lines)


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "fanout": ("One event to everybody", fanout),
    "filtered": ("One event to the few that asked for it", filtered),
    "steady": ("From commit to socket", steady),
    "memory": ("Memory", memory),
    "stalled": ("A client that stops reading", stalled),
    "processes": ("Several processes", processes),
    "save_cost": ("What a save costs", save_cost),
}


def where(told: dict[str, Any]) -> str:
    """Machine and versions in a sentence."""
    machine = told["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{machine['kernel']}, Python {machine['python']}; {versions}."
    )


def plot(told: dict[str, Any], path: Path) -> None:
    """Bars of µs a delivery at the smallest number of subscribers, a panel a server."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = [row for row in told["rows"] if "refused" not in row]
    size = min(row["subscribers"] for row in rows)
    panels = groups([row for row in rows if row["subscribers"] == size], "server")
    tall = max(len(each) for each in panels.values())
    figure, axes = plt.subplots(
        1, len(panels), figsize=(7 * len(panels), 0.36 * tall + 1.4), squeeze=False
    )
    for axis, ((server,), each) in zip(axes[0], panels.items(), strict=True):
        ordered = sorted(each, key=lambda row: -row["us_per_delivery"])
        names = [row["name"] for row in ordered]
        values = [row["us_per_delivery"] for row in ordered]
        colours = ["#0c7c59" if name.startswith("ours") else "#9aa5b1" for name in names]
        bars = axis.barh(names, values, color=colours)
        axis.bar_label(bars, [f" {value:.1f}" for value in values], fontsize=8)
        axis.set_xscale("log")
        axis.set_xlim(1, max(values) * 2.5)
        axis.set_title(f"{server}: server CPU µs a delivery, {size:,} subscribers", fontsize=10)
        axis.tick_params(labelsize=8)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    machine = told["machine"]
    versions = ", ".join(
        f"{name} {told['versions'][name]}"
        for name in ("django", "channels", "uvicorn", "websockets", "daphne", "socket.io", "node")
        if name in told["versions"]
    )
    caption = f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, "
    figure.text(0.01, 0.01, caption + versions + f", {told['at'][:10]}", fontsize=7, color="#555")
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.savefig(path, dpi=110)


def main() -> None:
    parts = [INTRO]
    for name, (title, section) in SECTIONS.items():
        told = results.load(name)
        if told is None:
            continue
        busy = f", load average {told['load']}" if "load" in told else ""
        head = f"`{told['command']}`, {told['at'][:10]}{busy}"
        parts.append(f"## {title}\n\n{head}\n\n{section(told)}")
        if name == "fanout":
            plot(told, DOCS / "images" / "fanout.png")
    latest = max(filter(None, map(results.load, SECTIONS)), key=lambda told: str(told["at"]))
    parts.append(f"## Machine and versions\n\n{where(latest)}\n")
    (DOCS / "benchmarks.md").write_text("\n".join(parts))
    say("docs/benchmarks.md")


if __name__ == "__main__":
    main()

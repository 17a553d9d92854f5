"""Write ``docs/benchmarks.md`` and its plot from the JSON files in ``benchmarks/results``.

python -m benchmarks.report
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import report_paths, results
from benchmarks.common import print_line
from benchmarks.plot import plot_fanout
from benchmarks.tables import (
    FAULTS,
    Rows,
    format_faults,
    format_number,
    group_rows,
    markdown_table,
    unsupported_row,
)

DOCS = Path(__file__).parent.parent / "docs"

INTRO = """# Benchmarks

This page compares the cost of this app with that of other software. It is written by
`python -m benchmarks.report` from the results of `make bench`; do not edit it. How the app reaches
these figures is described in [Performance](explanation/performance.md).

Each table contains the results of one run on one machine, for this app (the rows named “realtime”)
and for its peers. Compare the ratios and not the absolute times, which depend on the machine.

**CPU per delivery** is the main figure: the user and system time of the server's process tree, read
from `/proc`. Other work on the machine affects it less than the elapsed time. A *delivery* is one
event that arrives at one socket. Each delivery is read and checked by its number, and lost,
duplicate and misdirected ones are counted.

The conditions are the same in all runs:

- Subscribers are sockets of another process on the same machine (loopback, no TLS).
- Frames are not compressed: no client offers permessage-deflate.
- Documents have about 250 bytes, frames about 480.
- Each realtime subscriber has its own identity, filter, mandatory filter of the permission, cursor
  and bounded queue.
- uvicorn runs with `--ws websockets-sansio`.
- The load average is that of the last five minutes of the run. A benchmark's own server and clients
  cause a load of one to two; anything above is other work on the same cores.
"""


def fanout(result: dict[str, Any]) -> str:
    """Return the section about one event to all subscribers."""
    parts = [
        "Each event is sent to all subscribers, and the next one after all have received it. Rows "
        f"with “burst” send {result['burst']} events at once. The column “Channels consumer” "
        "contains the cost of a Channels consumer with the in-memory layer, as a multiple of this "
        "row.\n\n"
        "![Server CPU time per delivery, for each server and peer](images/fanout.png)\n"
    ]
    head = ["", "µs CPU per delivery", "× raw ASGI", "Channels consumer", "p99 ms", FAULTS]
    for (server, size), rows in group_rows(result["rows"], "server", "subscribers").items():
        lines = [
            unsupported_row(row, len(head))
            if "refused" in row
            else [
                row["name"],
                format_number(row["us_per_delivery"]),
                format_number(row.get("ratio_to_raw_asgi"), "{:.2f}"),
                format_number(row.get("channels_consumer_ratio"), "{:.1f}×"),
                format_number(row["p99_ms"]),
                format_faults(row),
            ]
            for row in rows
        ]
        parts.append(f"### {server}, {size:,} subscribers\n\n" + markdown_table(head, lines))
    return "\n".join(parts)


def filtered(result: dict[str, Any]) -> str:
    """Return the section about one event to a few subscribers."""
    parts = [
        f"Each event matches {result['matches']} subscribers, however many there are. Nothing is "
        "saved: the change is passed directly to the hub, or to the channel layer of the peers. "
        "The trigger, a datagram that starts each event, is part of every figure. The column "
        "“× 1,000 subscribers” compares the cost with that for 1,000 subscribers.\n"
    ]
    head = ["", "µs CPU per event", "Channels consumer", "× 1,000 subscribers", "p99 ms", FAULTS]
    for (server, size), rows in group_rows(result["rows"], "server", "subscribers").items():
        lines = [
            unsupported_row(row, len(head))
            if "refused" in row
            else [
                row["name"],
                format_number(row["us_per_event"], "{:,.0f}"),
                format_number(row.get("channels_consumer_ratio"), "{:,.0f}×"),
                format_number(row.get("ratio_to_fewer_subscribers"), "{:.2f}"),
                format_number(row["p99_ms"]),
                format_faults(row),
            ]
            for row in rows
        ]
        trigger = format_number(rows[0].get("trigger_us"), "{:.0f}")
        title = f"### {server}, {size:,} subscribers (trigger: {trigger} µs)\n\n"
        parts.append(title + markdown_table(head, lines))
    return "\n".join(parts)


def steady_rate(result: dict[str, Any]) -> str:
    """Return the section about the time from commit to socket."""
    head = ["database", "server", "", "p50 ms", "p99 ms", "p99 over the floor", "×", "goal"]
    head.append(FAULTS)
    lines = [
        [
            row["database"],
            row["server"],
            row["name"],
            format_number(row["p50_ms"]),
            format_number(row["p99_ms"]),
            format_number(row["ms_over_floor"], "{:+.1f}"),
            format_number(row.get("ratio_to_floor"), "{:.2f}"),
            format_number(row.get("goal")),
            format_faults(row),
        ]
        for row in result["rows"]
    ]
    subscribers = result["rows"][0]["subscribers"]
    return (
        f"{result['rate']:.0f} real saves per second are delivered to {subscribers:,} subscribers. "
        "The time is measured from the commit to the arrival at the socket. The first row for each "
        "server is a floor: it saves a model that is not watched, and then sends. The third is the "
        "same if another process saves.\n\n" + markdown_table(head, lines)
    )


def memory(result: dict[str, Any]) -> str:
    """Return the section about the memory of connections and subscriptions."""
    head = ["server", "", "number", "KiB each", "× raw ASGI", "idle CPU"]
    lines = [
        [
            row["server"],
            row["name"],
            f"{row.get('connections') or row.get('subscriptions'):,}",
            format_number(row["bytes_each"] / 1024, "{:.2f}"),
            format_number(row.get("ratio_to_raw_asgi"), "{:.2f}"),
            format_number(row.get("idle_cpu_percent"), "{:.1f}%"),
        ]
        for row in result["rows"]
    ]
    about = (
        "The resident memory of the server process, per connection or subscription. Idle CPU is a "
        "share of one core.\n\n"
    )
    return about + markdown_table(head, lines)


def stalled(result: dict[str, Any]) -> str:
    """Return the section about a client that stops reading."""
    head = ["server", "", "p99 without → with", "ratio", "lost", "growth KiB (without)", "closed"]
    lines = [
        [
            row["server"],
            row["name"],
            f"{format_number(row['p99_without_ms'])} → {format_number(row['p99_with_ms'])} ms",
            format_number(row["ratio"], "{:.2f}"),
            row["lost"],
            f"{row['growth_kib']:.0f} ({row['growth_without_kib']:.0f})",
            row["code"] or "no",
        ]
        for row in result["rows"]
    ]
    return (
        "One of 100 clients stops reading. Events have 16 kB, so that buffers are full soon. The "
        "column p99 is for the other 99 clients, without and with the client that has stopped; "
        "“growth” is that of the server's memory.\n\n"
        + markdown_table(head, lines)
        + stalled_memory(result.get("memory", []))
    )


def stalled_memory(rows: Rows) -> str:
    """Return the table of the memory that one stalled client costs, by kind of request."""
    if not rows:
        return ""
    head = ["server", "the stalled client asked for", "held MiB", "peak MiB", "closed"]
    lines = [
        [
            row["server"],
            row["name"],
            format_number(row["held_mib"]),
            format_number(row["peak_mib"]),
            row.get("code") or "no",
        ]
        for row in rows
    ]
    return (
        "\nThe growth of the server's memory by one client that makes requests and reads nothing. "
        "The goal is at most 2 MiB that are held.\n\n" + markdown_table(head, lines)
    )


def fair(result: dict[str, Any]) -> str:
    """Return the section about well-behaved clients beside a hostile one."""
    head = ["database", "server", "the hostile client", "login ms", "ratio", "event ms", "ratio"]
    lines = [
        [
            row["database"],
            row["server"],
            row["about"],
            *(
                cell
                for name in ("login", "event")
                for cell in (
                    f"{format_number(row[f'{name}_quiet_ms'])} → "
                    f"{format_number(row[f'{name}_hostile_ms'])}",
                    format_number(row[f"{name}_ratio"], "{:.2f}"),
                )
            ),
        ]
        for row in result["rows"]
    ]
    return (
        "50 subscribers receive the changes of 10 saves a second, while 50 other clients log in "
        "(connect, authenticate, subscribe). The figures are 99th percentiles without and with a "
        "hostile client of another address, measured in turns, with the default limits. The goal "
        f"is a ratio of at most {result['goal']:.1f}.\n\n" + markdown_table(head, lines)
    )


def rolling_restart(result: dict[str, Any]) -> str:
    """Return the section about two servers that are restarted one after the other."""
    head = ["server", "restart", "clients moved", "away p50 / p95 / max ms", "back after SIGTERM"]
    head += ["most in a second", "stopped after", "lost / duplicate"]
    head += ["GETs failed", "POSTs failed", "of those in flight at SIGTERM"]
    lines = [
        [
            row["server"],
            row["restart"],
            row["moved"],
            " / ".join(f"{row[f'away_{name}_ms']:,.0f}" for name in ("p50", "p95", "max")),
            f"{row['first_back_s']:.1f} to {row['last_back_s']:.1f} s",
            row["most_per_second"],
            f"{row['stopped_s']:.1f} s",
            f"{row['lost']} / {row['duplicates']}",
            f"{row['gets_failed']} of {row['gets']:,}",
            f"{row['posts_failed']} of {row['posts']:,}",
            f"{row['posts_accepted_failed']} of {row['posts_accepted']}",
        ]
        for row in result["rows"]
    ]
    changes = sum(row["presence_changes"] for row in result["rows"])
    return (
        f"Two servers behind nginx, which adds TLS, with {result['clients']} clients that watch a "
        "collection and are members of a durable room. Each server gets SIGTERM, with `DRAIN` at "
        f"{result['drain']:g} seconds, and is started again; then follows the other one, which "
        "then has all clients. Saves, broadcasts, GETs, and POSTs that take a second go on. "
        "“Away” is the time without a connection, “most in a second” the number of clients that "
        "came back within the second with the most of them. The other members of the room saw "
        f"{changes} changes.\n\n" + markdown_table(head, lines)
    )


def save_cost(result: dict[str, Any]) -> str:
    """Return the section about the cost of the log for a save."""
    head = ["database", "", "unwatched µs"]
    for mode in ("signals", "triggers"):
        head += [mode, "added µs", "target"]
    lines = [
        [
            row["database"],
            row["name"],
            format_number(row["unwatched_us"], "{:,.0f}"),
            *(
                cell
                for mode in ("signals", "triggers")
                for cell in (
                    format_number(row.get(mode), "{:.2f}×"),
                    format_number(row.get(f"{mode}_added_us"), "{:,.0f}"),
                    row.get(f"{mode}_target", ""),
                )
            ),
        ]
        for row in result["rows"]
    ]
    return (
        "A write without subscribers. The columns “signals” and “triggers” are ratios to the same "
        "write to a model that is not watched, each with the µs that it adds and its target.\n\n"
        + markdown_table(head, lines)
    )


def read_log(result: dict[str, Any]) -> str:
    """Return the section about the decoding of logged events."""
    head = ["database", "", "signals µs", "triggers µs"]
    lines = [
        [
            row["database"],
            row["name"],
            *(format_number(row[f"{mode}_us"]) for mode in ("signals", "triggers")),
        ]
        for row in result["rows"]
    ]
    return (
        "The time per event in which a server process decodes 1,000 events of the log, without "
        "the query that reads them. Images that triggers wrote are converted.\n\n"
        + markdown_table(head, lines)
    )


def processes(result: dict[str, Any]) -> str:
    """Return the section about several server processes."""
    head = ["layer", "server", "processes", "µs CPU per delivery", "× one process"]
    head += ["deliveries/s", "× one process", "Redis messages per event", "lost / duplicate"]
    lines = [
        [
            row["layer"],
            row["server"],
            f"{row['processes']}, real saves" if "saves" in row else row["processes"],
            format_number(row.get("us_per_delivery")),
            format_number(row.get("ratio_to_one_process"), "{:.2f}"),
            format_number(row.get("per_second"), "{:,.0f}"),
            format_number(row.get("throughput_ratio_to_one_process"), "{:.2f}"),
            format_number(row["messages_per_event"], "{:.2f}"),
            f"{row['lost']} / {row['duplicates']}",
        ]
        for row in result["rows"]
    ]
    return (
        f"The machine has {result['machine']['cores']} cores, which the servers share with the "
        "load generator. The throughput can grow only on a machine with more cores.\n\n"
        + markdown_table(head, lines)
    )


SECTIONS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "fanout": ("One event to all subscribers", fanout),
    "filtered": ("One event to the few subscribers that match", filtered),
    "steady_rate": ("From commit to socket", steady_rate),
    "write_path": ("The write path", report_paths.write_path),
    "arrivals": ("Arriving clients", report_paths.arrivals),
    "storm": ("All clients return after a restart", report_paths.storm),
    "growth": ("Growth", report_paths.growth),
    "memory": ("Memory", memory),
    "stalled": ("A client that stops reading", stalled),
    "fair": ("Beside a hostile client", fair),
    "processes": ("Several processes", processes),
    "rolling_restart": ("Rolling restarts", rolling_restart),
    "save_cost": ("What a save costs", save_cost),
    "read_log": ("What reading the log costs", read_log),
}


def describe_machine(result: dict[str, Any]) -> str:
    """Return one sentence about the machine and the versions."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{machine['kernel']}, Python {machine['python']}; {versions}."
    )


def main() -> None:
    parts = [INTRO]
    for name, (title, section) in SECTIONS.items():
        result = results.load(name)
        if result is None:
            continue
        load_average = f", load average {result['load']}" if "load" in result else ""
        head = f"`{result['command']}`, {result['at'][:10]}{load_average}"
        parts.append(f"## {title}\n\n{head}\n\n{section(result)}")
        if name == "fanout":
            plot_fanout(result, DOCS / "images" / "fanout.png")
    latest = max(filter(None, map(results.load, SECTIONS)), key=lambda result: str(result["at"]))
    parts.append(f"## Machine and versions\n\n{describe_machine(latest)}\n")
    (DOCS / "benchmarks.md").write_text("\n".join(parts))
    print_line("docs/benchmarks.md")


if __name__ == "__main__":
    main()

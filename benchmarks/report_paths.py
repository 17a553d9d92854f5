"""Sections of the report about the ways of an event and of an arriving client."""

from __future__ import annotations

from typing import Any

from benchmarks.tables import Rows, format_number, group_rows, markdown_table


def format_ratio(value: Any) -> str:
    """Format a ratio; a dash if there is none."""
    return format_number(value, "{:.2f}×")


def format_loss(row: dict[str, Any]) -> str:
    """Return the numbers of lost and duplicate events."""
    return f"{row['lost']} / {row['duplicates']}"


def write_path(result: dict[str, Any]) -> str:
    """Return the section about an event from the commit to the socket."""
    goals = result["goals"]
    text = (
        f"Another process saves {result['rate']:.0f} rows per second, and one client of each "
        "server receives each event. “×” is a multiple of the CPU of a bare save: the same save of "
        "a model that is not watched, by the process that makes it. The bare path is such a save, "
        "then NOTIFY (Redis pub/sub on SQLite), then one write to one socket by a raw ASGI "
        "application. “Numbering” is the server with the most CPU, “further” the mean of the "
        f"others. Goals: numbering at most {goals['server']}×, each further server "
        f"{goals['further']}×, the notification of servers (the bell) adds at most "
        f"{goals['bell']}× to a save; over the core layer and behind PgBouncer a p99 of at most "
        f"{goals['p99_ms']:.0f} ms and {goals['p99']:.0f} times that of the pub/sub layer.\n"
    )
    head = ["", "layer", "servers", "numbering", "further", "× bare path", "p50 / p99 ms"]
    head += ["p99 × pub/sub", "a save", "of it the bell", "lost / duplicate"]
    flat_head = ["", "events/s", "µs CPU per event", "× bare path", "lost / duplicate"]
    parts = [text]
    for (database,), rows in group_rows(result["rows"], "database").items():
        lines = [
            [
                row["name"],
                row["layer"],
                row.get("processes", "–"),
                format_ratio(row.get("server_ratio")),
                format_ratio(row.get("further_ratio")),
                format_number(row.get("path_ratio")),
                f"{format_number(row['p50_ms'])} / {format_number(row['p99_ms'])}",
                format_number(row.get("p99_ratio")),
                format_ratio(row.get("save_ratio")),
                format_ratio(row.get("bell_ratio")),
                format_loss(row),
            ]
            for row in rows
            if not row.get("flat_out")
        ]
        flat = [
            [
                row["name"],
                format_number(row["events_per_second"], "{:,.0f}"),
                format_number(row["server_us"], "{:,.0f}"),
                format_number(row.get("path_ratio")),
                format_loss(row),
            ]
            for row in rows
            if row.get("flat_out")
        ]
        parts.append(f"### {database}, {result['rate']:.0f} saves per second\n")
        parts.append(markdown_table(head, lines))
        parts.append(
            f"### {database}, flat out\n\nThe goal is {goals['events_per_second']:,.0f} events per "
            "second from a log that is filled fast enough, by bulk inserts, and at most "
            f"{goals['flat_us']:.0f} µs per event.\n"
        )
        parts.append(markdown_table(flat_head, flat))
    return "\n".join(parts)


def arrivals(result: dict[str, Any]) -> str:
    """Return the section about an arriving client."""
    head = ["database", "", "snapshot", "× raw ASGI", "goal", "µs CPU per client"]
    head += ["database µs", "queries per client"]
    lines = [
        [
            row["database"],
            row["name"],
            result["documents"] if row["snapshot"] else "no",
            format_number(row["ratio"], "{:.1f}×"),
            f"{row['goal']:.1f}×",
            format_number(row["us"], "{:,.0f}"),
            format_number(row["database_us"] or None, "{:,.0f}"),
            format_number(row.get("queries"), "{:.3f}"),
        ]
        for row in result["rows"]
    ]
    return (
        "Clients connect, authenticate and subscribe, 64 at a time. The raw ASGI application sends "
        "the same answers and checks nothing. All ask for the same snapshot. “Database” is the CPU "
        "of PostgreSQL, beside that of the server.\n\n" + markdown_table(head, lines)
    )


def storm(result: dict[str, Any]) -> str:
    """Return the section about the return of all clients after a restart."""
    head = ["database", "", "clients", "back after s (p50 / last)", "goal s", "× raw ASGI"]
    head += ["µs CPU per client", "× raw ASGI", "others' p99 ms", "goal ms", "lost / duplicate"]
    lines = [
        [
            row["database"],
            row["name"],
            f"{row['returned']:,} of {row['clients']:,}",
            f"{format_number(row['p50_s'])} / {format_number(row['last_s'])}",
            format_number(row["goal_s"]),
            format_number(row.get("ratio")),
            format_number(row["us_per_client"], "{:,.0f}"),
            format_number(row.get("cpu_ratio")),
            format_number(row["others_p99_ms"], "{:.0f}"),
            format_number(row["goal_others_ms"], "{:.0f}"),
            format_loss(row),
        ]
        for row in result["rows"]
    ]
    return (
        f"A server is killed and started again; {result['changes']} rows are saved in between. "
        "Each client begins to return within half a second after the server listens, and is back "
        "when it has received all that it had missed. “Others” were back before, and receive the "
        "events of 20 saves per second meanwhile.\n\n" + markdown_table(head, lines)
    )


GROWTH_TITLES = {
    "servers": "Server processes on one database, and one Redis",
    "hosts": "Redis hosts",
    "collections": "Collections, each with a subscription",
    "log": "Events in the log",
    "idle": "Idle connections",
}


def growth(result: dict[str, Any]) -> str:
    """Return the section about larger numbers of everything."""
    parts = [
        "“×” is a multiple of the first row of the same kind. Events come from "
        f"{result['rate']:.0f} saves per second.\n"
    ]
    for (part,), rows in group_rows(result["rows"], "part").items():
        parts.append(f"### {GROWTH_TITLES[part]}\n")
        parts.append(growth_table(rows))
    return "\n".join(parts)


def growth_table(rows: Rows) -> str:
    """Return the table of one part, with the columns that it has."""
    extra = {
        "server_us": ("numbering µs", "{:,.0f}"),
        "further_us": ("each further µs", "{:,.0f}"),
        "p99_ms": ("p99 ms", "{:.1f}"),
        "longest_ms": ("longest call ms", "{:.0f}"),
        "idle_cpu_percent": ("idle CPU", "{:.1f}%"),
    }
    columns = [name for name in extra if any(row.get(name) is not None for row in rows)]
    head = ["database", "", "", "×", *(extra[name][0] for name in columns)]
    lines = [
        [
            row["database"],
            row["name"],
            f"{row['value']:,.1f} {row['unit']}",
            format_number(row["ratio"], "{:.2f}"),
            *(format_number(row.get(name), extra[name][1]) for name in columns),
        ]
        for row in rows
    ]
    return markdown_table(head, lines)

"""``realtime_doctor``: find out what is wrong with a running installation."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS

from ...declarations.registry import registry
from ..doctor import database, log, process, services
from ..doctor.base import Level, Probe, ProbeResult, run_probe

# roles of Django's styles, by level
ROLES: dict[Level, str] = {"ok": "SUCCESS", "warn": "WARNING", "fail": "ERROR"}
DATABASE_HINT = "Look at DATABASES, and whether the database runs and can be reached from here."
LAYER_HINT = "Look at CHANNEL_LAYERS, and whether Redis runs and can be reached from here."
PRESENCE_HINT = "Look at PRESENCE, and whether its database or Redis can be reached from here."


class Command(BaseCommand):
    """Runs probes, each for some seconds at most. Exits with 1 if one finds a failure."""

    help = "Check the databases, the log, triggers, clocks, the channel layer, limits and servers."
    # they are one of the probes
    requires_system_checks: Any = []

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the form of the report, and the checks for production."""
        parser.add_argument("--json", action="store_true", help="Print the report as JSON.")
        parser.add_argument(
            "--deploy", action="store_true", help="Also run the system checks for production."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run all probes, and print what they find."""
        results: list[ProbeResult] = []
        for result in _results(deploy=options["deploy"]):
            results.append(result)
            if not options["json"]:
                self._print(result)
        failures = sum(f.level == "fail" for result in results for f in result.findings)
        if options["json"]:
            self.stdout.write(json.dumps(_report(results, is_ok=not failures), indent=2))
        if failures:
            noun = "failure" if failures == 1 else "failures"
            raise CommandError(f"{failures} {noun}.", returncode=1)

    def _print(self, result: ProbeResult) -> None:
        is_plain = bool(os.environ.get("NO_COLOR")) or not self.stdout.isatty()
        for finding in result.findings:
            level = f"{finding.level:<4}"
            if not is_plain:
                level = getattr(self.style, ROLES[finding.level])(level)
            self.stdout.write(f"{level}  {result.name:<22}  {finding.message}")
            if finding.hint:
                self.stdout.write(f"{'':<30}{finding.hint}")
        self.stdout.flush()


def _results(*, deploy: bool) -> Iterator[ProbeResult]:
    """Yield the results of all probes, without those of databases that do not answer."""
    yield run_probe(Probe("settings", partial(process.probe_settings, deploy=deploy)))
    for using in _databases():
        result = run_probe(
            Probe(f"database {using}", partial(database.probe_connection, using), DATABASE_HINT)
        )
        yield result
        if result.is_failed:
            continue
        tables = run_probe(Probe(f"tables {using}", partial(database.probe_tables, using)))
        yield tables
        for name, function in (
            ("triggers", database.probe_triggers),
            ("numbering", log.probe_numbering),
            ("retention", log.probe_retention),
            ("clock", database.probe_clock),
            ("announcements", database.probe_announcements),
            ("connections", database.probe_capacity),
        ):
            if name not in ("triggers", "numbering", "retention") or not tables.is_failed:
                yield run_probe(Probe(f"{name} {using}", partial(function, using), DATABASE_HINT))
    layer = run_probe(Probe("channel layer", services.probe_layer, LAYER_HINT))
    yield layer
    if not layer.is_failed:
        yield run_probe(Probe("other processes", services.probe_processes, LAYER_HINT))
    yield run_probe(Probe("presence", services.probe_presence, PRESENCE_HINT))
    yield run_probe(Probe("open files", process.probe_open_files))
    yield run_probe(Probe("server", process.probe_server))
    yield run_probe(Probe("application", process.probe_application))


def _databases() -> list[str]:
    """Return the databases with a log, and the default one, which has the other tables."""
    try:
        return list(dict.fromkeys([DEFAULT_DB_ALIAS, *registry.log_databases()]))
    except (ImproperlyConfigured, LookupError, ImportError, TypeError):
        return [DEFAULT_DB_ALIAS]  # the system checks report it


def _report(results: list[ProbeResult], *, is_ok: bool) -> dict[str, Any]:
    findings = [
        {"probe": result.name, **asdict(finding)}
        for result in results
        for finding in result.findings
    ]
    seconds = {result.name: round(result.seconds, 3) for result in results}
    return {"ok": is_ok, "findings": findings, "seconds": seconds}

"""Runs Django's tests with every model watched, and compares with what fails without the app.

    python -m tests.django_suite                          the folders that write, on SQLite
    python -m tests.django_suite --folders all --database postgres
    python -m tests.django_suite --mode manager           with another default manager everywhere
    python -m tests.django_suite --mode queries           the number of queries of each test
    python -m tests.django_suite update.tests.AdvancedTests -v
    python -m tests.django_suite --store                  store what fails without the app

The exit code is 1 if a test fails that passes without the app, or if the log does not give the
tables, exceptions aside.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import django

from tests.django_suite import plain_postgres, report, source
from tests.django_suite.options import Options
from tests.support import postgres

MIN_TESTS_WITH_EVENTS = 2000
MAX_PRINTED = 40  # tests that are printed of each kind
PROJECT = Path(__file__).parents[2]
FOLDERS = Path(__file__).parent / "folders.txt"


def parse_arguments() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(prog="python -m tests.django_suite")
    add = parser.add_argument
    add("labels", nargs="*", help="tests to run, as for runtests.py; instead of folders")
    add("--mode", choices=["signals", "manager", "queries"], default="signals")
    add("--database", choices=["sqlite", "postgres"], default="sqlite")
    add("--folders", choices=["writing", "all"], default="writing")
    add("--parallel", default=str(os.cpu_count() or 1), help="number of processes")
    add("--bare", action="store_true", help="run without the app too, do not read the stored list")
    add("--store", action="store_true", help="run without the app, and store what fails")
    add("--records", help="empty folder to keep the records of the runs in")
    add("-v", "--verbose", action="store_true", help="print the tracebacks of unexpected failures")
    return parser.parse_args()


def main() -> int:
    """Run as the arguments say. Return the exit code."""
    arguments = parse_arguments()
    if arguments.database == "postgres":
        postgres.server_url()
    version = ".".join(django.get_version().split(".")[:2])
    section = f"{version} {arguments.database}"
    if arguments.mode == "manager":
        section += " manager"
    labels = arguments.labels or FOLDERS.read_text().split()
    if arguments.folders == "all" and not arguments.labels:
        unsupported = plain_postgres.UNSUPPORTED if arguments.database == "postgres" else ()
        labels = source.folders(without=unsupported)
    with tempfile.TemporaryDirectory() as temporary:
        suite = Suite(arguments, Path(arguments.records or temporary))
        if arguments.store:
            bare = suite.run("bare", "", labels)
            kept = report.read_unwatched(section) - bare.outcomes.keys()
            report.store_unwatched(section, bare.failed | kept)
            print(f"{len(bare.failed)} of {len(bare.outcomes)} tests fail without the app.")
            return 0
        watched = suite.run("watched", "signals", labels)
        if arguments.bare or arguments.mode == "queries":
            bare = suite.run("bare", "", labels)
            expected = bare.failed
        else:
            bare, expected = None, report.read_unwatched(section)
        new = watched.failed - expected
        exceptions = report.read_exceptions("failure", arguments.database)
        unexpected = new - exceptions.keys()
        also_bare: set[str] = set()
        if unexpected and bare is None:
            also_bare = suite.run("again", "", labels_of(unexpected)).failed & unexpected
        unexpected -= also_bare

    excepted_logs = report.read_exceptions("log", arguments.database)
    differences = watched.found("differences")
    unlogged = {test: texts for test, texts in differences.items() if test not in excepted_logs}
    errors = watched.found("error")
    broken = watched.found("broken")
    skipped = watched.found("skipped")

    print(f"\nDjango {django.get_version()} on {section}: {watched.watched} models watched")
    outcomes = list(watched.outcomes.values())
    print(f"{len(outcomes):7} tests, {outcomes.count('skipped')} of them skipped")
    print(f"{len(watched.failed):7} failed, {len(expected & watched.outcomes.keys())} unwatched")
    print(f"{len(also_bare):7} failed that fail unwatched here, though not in the list")
    print(f"{len(unexpected):7} failed unexpectedly")
    print(f"{watched.tests_with_events:7} tests logged an event")
    print(f"{sum(finding['tables'] for finding in watched.findings.values()):7} tables compared")
    print(f"{len(skipped):7} tests with tables that could not be compared")
    print(f"{len(differences):7} tests whose log does not give the tables")
    print(f"{len(unlogged):7} of them unexpectedly")
    print(f"{len(broken):7} tests with events that do not follow from the ones before")

    problems = 0
    for label, message in watched.refused.items():
        print(f"refused: {label}: {message}")
    gone = (exceptions.keys() & watched.outcomes.keys()) - watched.failed
    gone |= (excepted_logs.keys() & watched.findings.keys()) - differences.keys()
    for test in sorted(gone):
        print(f"exception that is not needed: {test}")
    for test in sorted(unexpected)[:MAX_PRINTED]:
        text = watched.texts[test].strip()
        shown = text if arguments.verbose else report.exception_line(text)
        print(f"\nFAILED {test}\n  {shown}")
    for test in sorted(unlogged)[:MAX_PRINTED]:
        print(f"\nLOG DIFFERS {test}", *unlogged[test], sep="\n  ")
    for test in sorted(errors)[:MAX_PRINTED]:
        print(f"\nORACLE FAILED {test}\n{report.shortened(str(errors[test]))}")
    problems += len(unexpected) + len(unlogged) + len(errors)
    if bare is not None and bare.queries:
        problems += compare_queries(watched, bare)
    if not arguments.labels and watched.tests_with_events < MIN_TESTS_WITH_EVENTS:
        print(f"\nFewer than {MIN_TESTS_WITH_EVENTS} tests logged an event.")
        problems += 1
    return 1 if problems else 0


class Suite:
    """Runs Django's tests in other processes, with one database and mode."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self._folder = folder
        self._parallel = arguments.parallel
        self._options = Options(
            database=arguments.database,
            records="",
            manager="1" if arguments.mode == "manager" else "",
            queries="1" if arguments.mode == "queries" else "",
        )

    def run(self, name: str, capture: str, labels: Iterable[str]) -> report.Records:
        """Run once, and return the records. Exits if the run was not completed."""
        folder = self._folder / name
        folder.mkdir(parents=True)
        options = replace(self._options, capture=capture, records=str(folder))
        runtests = source.tests_folder() / "runtests.py"
        arguments = ["--settings=tests.django_suite.settings", "--noinput"]
        output = folder / "output.txt"
        with output.open("w") as file:
            process = subprocess.run(
                [sys.executable, runtests, *arguments, f"--parallel={self._parallel}", *labels],
                cwd=runtests.parent,
                env={**os.environ, **options.environment(), "PYTHONPATH": str(PROJECT)},
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
            )
        records = report.Records.read(folder)
        if not records.finished:
            print(report.shortened(output.read_text()))
            sys.exit(f"The run {name!r} ended early, with exit code {process.returncode}.")
        return records


def labels_of(tests: Iterable[str]) -> list[str]:
    """Return labels for tests; classes for those whose ``setUpClass`` failed."""
    return sorted({test.partition("(")[2].rstrip(")") or test for test in tests})


def compare_queries(watched: report.Records, bare: report.Records) -> int:
    """Print the tests that sent another number of queries. Return how many there are."""
    different = {
        test: (counts, watched.queries[test])
        for test, counts in bare.queries.items()
        if test in watched.queries and watched.queries[test] != counts
    }
    print(f"{len(different):7} of {len(bare.queries)} tests with another number of queries")
    for test in sorted(different)[:MAX_PRINTED]:
        unwatched, now = different[test]
        print(f"\nQUERIES {test}\n  unwatched {unwatched}, watched {now}")
    return len(different)


if __name__ == "__main__":
    sys.exit(main())

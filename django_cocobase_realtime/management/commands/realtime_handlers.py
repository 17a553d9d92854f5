"""``realtime_handlers``: call the functions that ``on_change`` has registered."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...declarations.handler import ChangeHandler, handler_registry
from ...handlers.runner import Outcome
from ...handlers.status import handler_status, restart_handler
from ...handlers.worker import run, run_once


class Command(BaseCommand):
    """Calls handlers with each committed change, until it gets SIGINT or SIGTERM."""

    help = (
        "Call the functions that on_change has registered with each committed change: after the "
        "commit, in order, and at least once. Several processes may run."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add options for the choice of handlers, and for what to do with them."""
        parser.add_argument("--name", action="append", metavar="NAME", help="only this handler")
        what = parser.add_mutually_exclusive_group()
        what.add_argument(
            "--once", action="store_true", help="end when all committed changes were handled"
        )
        what.add_argument("--status", action="store_true", help="print the state of the handlers")
        what.add_argument(
            "--restart", action="store_true", help="let stopped handlers try their change again"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Call the handlers, or print their state."""
        handlers = self._handlers(options["name"])
        if options["status"]:
            self._print_status(handlers)
        elif options["restart"]:
            for handler in handlers:
                if restart_handler(handler):
                    self.stdout.write(f"{handler.name}: restarted")
        elif options["once"]:
            self._run_once(handlers)
        else:
            for handler in handlers:
                self.stdout.write(f"{handler.name}: follows {handler.collection}")
            run(handlers)

    def _handlers(self, names: list[str] | None) -> list[ChangeHandler]:
        handlers = {handler.name: handler for handler in handler_registry.all()}
        if not handlers:
            raise CommandError(
                "There are no handlers. Decorate a function with on_change in a module named "
                "realtime of an installed app."
            )
        unknown = [name for name in names or () if name not in handlers]
        if unknown:
            raise CommandError(f"There is no handler {unknown[0]!r}; known are {list(handlers)}.")
        return [handlers[name] for name in names or handlers]

    def _run_once(self, handlers: list[ChangeHandler]) -> None:
        outcomes = run_once(handlers)
        problems = []
        for name, outcome in outcomes.items():
            match outcome:
                case Outcome.ELSEWHERE:
                    self.stdout.write(f"{name}: called by another process")
                case Outcome.IDLE:
                    self.stdout.write(f"{name}: done")
                case _:
                    problems.append(f"{name}: {outcome.value}")
        if problems:
            raise CommandError("; ".join(problems))

    def _print_status(self, handlers: list[ChangeHandler]) -> None:
        for handler in handlers:
            status = handler_status(handler)
            lag = "-" if status.lag is None else str(status.lag)
            self.stdout.write(f"{status.name}: {status.state}, {status.collection}, lag {lag}")
            if status.failures:
                self.stdout.write(f"  {status.failures} failures, last: {status.last_error}")

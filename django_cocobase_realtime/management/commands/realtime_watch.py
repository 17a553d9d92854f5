"""``realtime_watch``: print the events of a collection as they happen."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from ...auth.users import active_user
from ...conf import conf
from ...declarations.collection import Collection
from ...declarations.registry import UnknownCollection, registry
from ...delivery.query import SubscriptionRefused
from ...filters import InvalidFilter
from ...identity import DEFAULT_PROJECT, Identity, display_name
from ...log.resume import Resync
from ...utils.project_code import DATABASE_UNAVAILABLE, ProjectCodeFailed
from ..watching.lines import Rate, as_json, as_line, printable
from ..watching.tail import StreamTail
from ..watching.view import NotAllowed, OperatorView, ShownEvent, UserView, View, parse_filters

# seconds between two reads of the log, unless LOG's POLL is shorter
POLL_INTERVAL = 0.25
# seconds after which the log is read again if the database did not answer
RETRY_INTERVAL = 2.0
# begins a line of the terminal again, and clears it
CLEAR_LINE = "\r\x1b[2K"


class Command(BaseCommand):
    """Follows the log of a collection. It needs no server process, and no channel layer."""

    help = "Print the events of a collection as they happen. End it with Ctrl-C."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the collection, and the options that select events and fields."""
        parser.add_argument("collection")
        parser.add_argument(
            "--filter",
            action="append",
            default=[],
            metavar="FIELD=VALUE",
            help="Only events of rows that match, such as status=open or views__gt=10.",
        )
        parser.add_argument("--fields", metavar="A,B", help="Print only these fields.")
        parser.add_argument(
            "--user", metavar="ID", help="Print what this user gets; a primary key or a username."
        )
        parser.add_argument("--project", default=DEFAULT_PROJECT, help="The project of the user.")
        parser.add_argument("--json", action="store_true", help="Print one JSON object per line.")
        parser.add_argument("--since", metavar="CURSOR", help="Begin after this event.")
        parser.add_argument("--count", type=int, metavar="N", help="End after N events.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Follow the log until Ctrl-C, or until enough events were printed."""
        self._count, self._json = options["count"], options["json"]
        if self._count is not None and self._count < 1:
            raise CommandError("--count must be at least 1.")
        self._rate = Rate()
        # whether the last line of the terminal is the rate
        self._has_rate_line = False
        collection = _collection(options["collection"])
        try:
            view = _view(collection, options)
            view.refresh()
            tail = StreamTail(collection, options["since"])
        except Resync as error:
            raise CommandError(
                f"The log cannot be read from this cursor on: {error.reason}."
            ) from None
        except _REFUSALS as error:
            raise CommandError(str(error)) from None
        except DATABASE_UNAVAILABLE as error:
            raise CommandError(f"The database does not answer: {error}") from error
        try:
            self._follow(tail, view)
        except KeyboardInterrupt:
            pass
        except BrokenPipeError:
            # the program that read the output has ended; Python flushes once more at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
        except _REFUSALS as error:
            raise CommandError(str(error)) from None
        finally:
            self._clear_rate()
        self._note(f"{self._rate.line()}. Continue with --since {tail.cursor}")

    def _follow(self, tail: StreamTail, view: View) -> None:
        """Print events until there are enough."""
        while True:
            more, wait = False, min(POLL_INTERVAL, conf.log.poll)
            try:
                batch = tail.read()
                more = batch.more
                if batch.notice is not None:
                    self._note(batch.notice)
                if batch.changes:
                    view.refresh()
                shown = [event for c in batch.changes if (event := view.show(c)) is not None]
            except DATABASE_UNAVAILABLE as error:
                self._note(f"The database does not answer: {printable(str(error).strip())}")
                connections.close_all()
                shown, wait, batch = [], RETRY_INTERVAL, None
            if self._count is not None:
                shown = shown[: self._count - self._rate.shown]
            self._rate.add(0 if batch is None else len(batch.changes), len(shown))
            self._print(shown)
            if self._count is not None and self._rate.shown >= self._count:
                return
            if not more:
                self._print_rate()
                time.sleep(wait)

    def _print(self, events: list[ShownEvent]) -> None:
        if not events:
            return
        self._clear_rate()
        for event in events:
            self.stdout.write(as_json(event) if self._json else as_line(event, self._paint))
        self.stdout.flush()

    def _paint(self, role: str, text: str) -> str:
        """Colour a text, if the output is a terminal and colours are not switched off."""
        if os.environ.get("NO_COLOR") or not self.stdout.isatty():
            return text
        return str(getattr(self.style, role)(text))

    # notices and the rate, beside the output

    def _note(self, text: str) -> None:
        self._clear_rate()
        self.stderr.write(text, self.style.NOTICE if not os.environ.get("NO_COLOR") else str)
        self.stderr.flush()

    def _print_rate(self) -> None:
        if self.stderr.isatty():
            self.stderr.write(f"{CLEAR_LINE}{self._rate.line()}", str, ending="")
            self.stderr.flush()
            self._has_rate_line = True

    def _clear_rate(self) -> None:
        if self._has_rate_line:
            self.stderr.write(CLEAR_LINE, str, ending="")
            self.stderr.flush()
            self._has_rate_line = False


# exceptions whose text says what is wrong with the options, or with the permission
_REFUSALS = (InvalidFilter, ValueError, NotAllowed, SubscriptionRefused, ProjectCodeFailed)


def _collection(name: str) -> Collection:
    """Return a collection that has a log."""
    try:
        collection = registry.get(name)
    except UnknownCollection:
        names = ", ".join(sorted(declared.name for declared in registry))
        raise CommandError(f"There is no collection {name!r}; there are {names}.") from None
    if not collection.durable:
        raise CommandError(f"The collection {name!r} has no log, so nothing can be read.")
    return collection


def _view(collection: Collection, options: dict[str, Any]) -> View:
    """Return the view of the operator or of a user. Raises `InvalidFilter` and ``ValueError``."""
    filters, names = parse_filters(options["filter"]), options["fields"]
    fields = None if names is None else [name.strip() for name in names.split(",")]
    if options["user"] is None:
        return OperatorView(collection, filters, fields)
    user = _user(options["user"])
    credential, project = f"command:{user.pk}", options["project"]
    identity = Identity(
        credential, user=user, user_id=user.pk, name=display_name(user), project=project
    )
    return UserView(collection, filters, fields, identity)


def _user(text: str) -> Any:
    """Return an active user by primary key or username."""
    user = active_user("pk", text)
    if user is None:
        user = active_user(get_user_model().USERNAME_FIELD, text)
    if user is None:
        raise CommandError(f"There is no active user {text!r}.")
    return user

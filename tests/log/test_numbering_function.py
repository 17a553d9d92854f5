"""The migration that installs the function which numbers events on PostgreSQL."""

import contextlib
import re
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from types import SimpleNamespace

import pytest
from django.core.management import call_command
from django.db import connection, connections

from django_cocobase_realtime.log import postgres_numbering
from django_cocobase_realtime.models import Stream
from tests.support import numbering
from tests.support.numbering import find_function

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connections["default"].vendor != "postgresql", reason="PostgreSQL"),
]
migration = import_module("django_cocobase_realtime.migrations.0009_related_numbers")
editor = SimpleNamespace(connection=connection)
SCHEMA, ROLE = "realtime_other", "realtime_reader"


def execute(*statements):
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@pytest.fixture
def _restore():
    yield
    execute("RESET ROLE", "RESET search_path", f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
    with contextlib.suppress(Exception):
        execute(f"DROP OWNED BY {ROLE}", f"DROP ROLE {ROLE}")
    migration.install(None, editor)
    assert find_function()


@pytest.mark.usefixtures("_restore")
def test_function_is_removed_with_its_migration():
    call_command("migrate", "cocobase_realtime", "0008", verbosity=0)
    assert find_function() is None
    call_command("migrate", "cocobase_realtime", verbosity=0)
    assert find_function() is not None


@pytest.mark.usefixtures("_restore")
def test_stream_that_is_created_during_the_call_is_left_out():
    """Its events have no number yet, so its head would not include them."""
    slow = migration.FUNCTION.replace("__schema__", "public")
    slow = slow.replace("    SELECT '[' ||", "    PERFORM pg_sleep(1);\n    SELECT '[' ||", 1)
    execute(
        "INSERT INTO cocobase_realtime_logevent (collection, transaction_id, op, document_id, "
        "created_at) VALUES ('posts', 't', 'created', '1', now())",
        slow,
    )
    with ThreadPoolExecutor(1) as thread:
        called = thread.submit(call_function)
        time.sleep(0.3)
        Stream.objects.create(collection="posts")
        assert called.result() == {}
    migration.install(None, editor)
    assert call_function()["posts"].head == 1


def call_function():
    parameters = postgres_numbering.follow_parameters([("posts", None, None)])
    try:
        ((text,),) = numbering.execute(find_function().follow, parameters)
        return postgres_numbering.decode_result(text)
    finally:
        connection.close()


@pytest.mark.usefixtures("_restore")
def test_role_without_the_right_to_create_functions_can_migrate(caplog):
    execute(f"DROP FUNCTION {migration.SIGNATURE}")
    execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC", f"CREATE ROLE {ROLE}", f"SET ROLE {ROLE}")
    migration.install(None, editor)
    assert find_function() is None
    assert "was not created: permission denied" in caplog.text


@pytest.mark.usefixtures("_restore")
def test_role_without_the_right_to_execute_the_function_does_not_use_it():
    execute(f"CREATE ROLE {ROLE}", f"REVOKE EXECUTE ON FUNCTION {migration.SIGNATURE} FROM PUBLIC")
    execute(f"SET ROLE {ROLE}")
    assert find_function() is None
    execute("RESET ROLE", f"GRANT EXECUTE ON FUNCTION {migration.SIGNATURE} TO PUBLIC")
    execute(f"SET ROLE {ROLE}")
    assert find_function() is not None


@pytest.mark.usefixtures("_restore")
def test_function_is_in_the_schema_of_the_tables():
    execute(f"CREATE SCHEMA {SCHEMA}", f"SET search_path = {SCHEMA}, public")
    for table in ("logevent", "stream"):
        name = f"cocobase_realtime_{table}"
        execute(f"CREATE TABLE {SCHEMA}.{name} (LIKE public.{name})")
    execute(f"INSERT INTO {SCHEMA}.cocobase_realtime_stream VALUES (1, 'posts', 'other', 7, 7)")
    migration.install(None, editor)
    sql = find_function()
    assert f"SELECT {SCHEMA}." in sql.follow
    with connection.cursor() as cursor:
        cursor.execute("SET search_path = public")
        statement = re.sub(r"\$\d", "%s", sql.follow)
        cursor.execute(statement, [["posts"], [None], [None], [None]])
        assert cursor.fetchone() == ('[["posts","other",7,7,7,false,[]]]',)

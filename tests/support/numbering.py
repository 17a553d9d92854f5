"""Statements of the function that numbers events on PostgreSQL, executed on Django's connection."""

import re

from asgiref.sync import async_to_sync, sync_to_async
from django.db import connection

from django_cocobase_realtime.log import postgres_numbering


def execute(sql, parameters):
    """Execute a statement with parameters as the driver numbers them; return its rows."""
    with connection.cursor() as cursor:
        cursor.execute(re.sub(r"\$\d", "%s", sql), parameters)
        return cursor.fetchall()


def find_function():
    """Return the statements; None if the function is not there."""
    return async_to_sync(postgres_numbering.find_function)(sync_to_async(execute))

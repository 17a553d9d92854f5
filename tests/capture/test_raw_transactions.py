"""Saves inside a transaction that the project opened by SQL of its own."""

import pytest
from django.db import connection

from tests.capture_app.models import Page
from tests.support.watching import summary, watching

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def watched():
    with watching(Page):
        yield


def begin():
    cursor = connection.cursor()
    cursor.execute("BEGIN")
    return cursor


def test_saves_are_logged_in_the_transaction():
    cursor = begin()
    page = Page.objects.create(html="a")
    page.a = 1
    page.save()
    Page.objects.filter(pk=page.pk).update(b=2)
    page.delete()
    cursor.execute("COMMIT")
    assert [op for _, op, _ in summary()] == ["created", "updated", "updated", "deleted"]


def test_rollback_by_sql_removes_the_events():
    cursor = begin()
    Page.objects.create(html="a")
    cursor.execute("ROLLBACK")
    assert not Page.objects.exists()
    assert summary() == []

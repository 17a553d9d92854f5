"""Capture with every way to manage transactions."""

import threading

import pytest
from django.db import connection, connections, transaction
from django.db.models.signals import post_save, pre_save

from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.events import Change
from django_cocobase_realtime.testing import capture_events
from tests.capture_app.models import (
    Bug,
    Page,
    Team,
)
from tests.support.watching import assert_log_gives_tables, logged, summary, watching

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


# transactions of every kind


@pytest.fixture
def manual():
    """Switch autocommit off for the test."""
    transaction.set_autocommit(False)
    yield
    transaction.rollback()
    transaction.set_autocommit(True)


def test_manual_transactions_are_logged_when_they_are_committed(manual):
    with watching(Page, Bug):
        page = Page.objects.create(a=1)
        page.save()
        transaction.commit()
        Page.objects.update(a=2)
        Bug.objects.create(title="b")
        transaction.rollback()
        Page.objects.bulk_create([Page(a=3)])
        page.delete()
        transaction.commit()
        changes = [c for c in logged() if c.collection == "page"]
        assert [c.op for c in changes] == ["created", "updated", "created", "deleted"]
        assert len({c.transaction for c in changes}) == 2
        assert_log_gives_tables()
        transaction.commit()


def test_database_without_autocommit_setting_is_captured():
    """``AUTOCOMMIT: False`` in DATABASES: the connection is opened in a transaction."""
    results = []

    def work():
        try:
            connections["default"].settings_dict["AUTOCOMMIT"] = False
            connections["default"].close()
            Page.objects.create(a=1)
            transaction.commit()
            Page.objects.update(a=2)
            transaction.rollback()
            results.append(Page.objects.get().a)
            transaction.commit()
        except Exception as error:
            results.append(error)
        finally:
            connections.close_all()

    settings_dict = connections["default"].settings_dict
    with watching(Page):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(30)
        settings_dict["AUTOCOMMIT"] = True
        assert results == [1]
        assert [op for _, op, _ in summary()] == ["created"]


def test_durable_block_may_follow_and_contain_captured_writes():
    with watching(Page, Bug):
        Page.objects.create()
        with transaction.atomic(durable=True):
            Page.objects.create()
            Bug.objects.create(title="b")
        Bug.objects.update(severity=2)
        with transaction.atomic(durable=True):
            Bug.objects.all().delete()
        assert len({c.transaction for c in logged("page")}) == 2
        assert_log_gives_tables()


def test_receiver_may_open_durable_block_after_autocommit_save(receive):
    """The transaction around a statement is committed before ``post_save`` is sent."""

    def write_durably(**kwargs):
        with transaction.atomic(durable=True):
            Team.objects.get_or_create(name="a")

    receive(post_save, Page, write_durably)
    receive(pre_save, Page, write_durably)
    outcomes = []
    for watched in ((), (Page, Team)):
        with watching(*watched):
            try:
                Page.objects.create()
                outcomes.append("saved")
            except RuntimeError as error:
                outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


async def test_atomic_requests_announce_after_the_response(client, settings):
    from django.test import AsyncClient

    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"page": "capture_app.Page"}}
    settings.ROOT_URLCONF = __name__
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        with capture_events() as events:
            assert (await AsyncClient().get("/ok")).status_code == 200
            assert [e.op for e in events if isinstance(e, Change)] == ["created", "updated"]
            events.clear()
            with pytest.raises(KeyError):
                await AsyncClient().get("/fails")
            assert events == []
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False


def _write(request):
    from django.http import HttpResponse

    page = Page.objects.create()
    page.a = 1
    page.save()
    if request.path == "/fails":
        raise KeyError
    return HttpResponse("ok")


def _urlpatterns():
    from django.urls import path

    return [path("ok", _write), path("fails", _write)]


urlpatterns = _urlpatterns()


def test_two_databases_in_one_block_log_their_own_rows():
    with watching(Page), transaction.atomic(), transaction.atomic("other"):
        Page.objects.create(a=1)
        Page.objects.using("other").create(a=2)
    with watching(Page):
        assert [c.after["a"] for c in logged()] == [1]
        assert registry.get("page").database == "default"

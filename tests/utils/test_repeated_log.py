"""The same failure is logged once per minute, and different failures are all logged."""

import logging

import pytest

from django_cocobase_realtime.utils import project_code, repeated_log
from django_cocobase_realtime.utils.project_code import ProjectCodeFailed, calling
from django_cocobase_realtime.utils.repeated_log import LOG_INTERVAL, MAX_CLIENTS, MAX_KINDS


class Clock:
    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(repeated_log, "time", clock)
    return clock


def fail(error=None, subject="collection 'posts'", method="P.visible_to", credential="key:a", **k):
    try:
        with calling(subject, method, credential, **k):
            raise error or RuntimeError("no")
    except ProjectCodeFailed as failure:
        failure.log()


def test_same_failure_is_logged_once_per_minute_with_its_repetitions(clock, caplog):
    for _ in range(500):
        fail()
    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info
    clock.now += LOG_INTERVAL + 1
    fail()
    fail()
    _, second = caplog.records
    assert second.getMessage().endswith("(499 more of this kind were not logged)")
    assert second.exc_info
    clock.now += LOG_INTERVAL + 1
    fail()
    assert "(1 more of this kind were not logged)" in caplog.records[2].getMessage()


@pytest.mark.parametrize(
    "other",
    [
        {"subject": "collection 'messages'"},
        {"method": "P.can_subscribe"},
        {"credential": "key:b"},
        {"error": ValueError("no")},
    ],
)
def test_different_failures_are_each_logged(clock, caplog, other):
    for _ in range(3):
        fail()
        fail(**other)
    assert len(caplog.records) == 2


def test_rooms_of_one_declaration_are_one_kind(clock, caplog):
    for number in range(100):
        fail(subject=f"room 'r{number}'", kind="rooms 'r*'")
    fail(subject="room 's1'", kind="rooms 's*'")
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "P.visible_to of room 'r0' failed for key",
        "P.visible_to of room 's1' failed for key",
    ]


def test_failure_for_many_clients_is_logged_for_some(clock, caplog):
    for number in range(100):
        fail(credential=f"jwt:{number}")
    assert len(caplog.records) == MAX_CLIENTS
    clock.now += LOG_INTERVAL + 1
    fail(credential="jwt:99")
    assert f"({100 - MAX_CLIENTS} more" in caplog.records[-1].getMessage()


def test_number_of_remembered_kinds_is_bounded(clock):
    log = repeated_log.RepeatedLog()
    for number in range(2 * MAX_KINDS):
        assert log.admit(number) == 0
    assert len(log._periods) == MAX_KINDS
    assert log.admit(2 * MAX_KINDS - 1) is None


class Unprintable(Exception):
    def __repr__(self):
        raise RuntimeError("no text")

    __str__ = __repr__


class SecondError(Exception):
    pass


def chained():
    error = SecondError("short")
    error.__cause__ = RuntimeError("x" * 10**6)
    return error


@pytest.mark.parametrize(
    "error", [RuntimeError("x" * 10**6), KeyError("x" * 10**6), Unprintable(), chained()]
)
@pytest.mark.parametrize("secret", [True, False])
def test_log_entry_is_bounded(clock, caplog, error, secret):
    failure = ProjectCodeFailed("collection 'posts'", "P.visible_to", secret=secret)
    failure.__cause__ = error
    failure.log()
    bound = 3 * project_code.MAX_MESSAGE + project_code.MAX_TRACEBACK
    assert 0 < len(caplog.text) < bound
    assert type(error).__name__ in caplog.text


def test_failures_of_several_connections_are_logged_with_a_count(clock, caplog):
    logger = logging.getLogger("test")

    def fail(client, kind=None):
        text = "Connection %s: no."
        repeated_log.log_repeated(
            logger, logging.WARNING, text, client, kind=kind, client=client, exc_info=None
        )

    for client in range(MAX_CLIENTS + 5):
        fail(client)
        fail(client)
    assert len(caplog.records) == MAX_CLIENTS
    assert caplog.records[0].getMessage() == "Connection 0: no."
    fail(0, kind="other")
    assert len(caplog.records) == MAX_CLIENTS + 1
    clock.now += LOG_INTERVAL + 1
    fail(99)
    text = "Connection 99: no. (20 more of this kind were not logged)"
    assert caplog.records[-1].getMessage() == text

"""Warnings about servers that accept messages of any size, without a server."""

from types import SimpleNamespace

import pytest

from django_cocobase_realtime.transport import input_limits

CLIENTS = "Clients without a credential"


class HypercornStream:
    """A stream of a version of hypercorn that the app does not know."""

    config = SimpleNamespace(websocket_max_message_size=16 * 1024 * 1024)

    async def app_send(self, message): ...


@pytest.fixture(autouse=True)
def _look_again(monkeypatch):
    monkeypatch.setattr(input_limits, "_looked", False)


def test_hypercorn_that_cannot_be_limited_is_reported_once(caplog):
    send = HypercornStream().app_send
    for _ in range(2):
        input_limits.limit_input(send)
    (message,) = caplog.messages
    assert message.startswith(CLIENTS)
    assert "set websocket_max_message_size in the configuration of hypercorn to 1048576." in message


def test_warning_is_silenced_with_its_check(caplog, settings):
    settings.SILENCED_SYSTEM_CHECKS = ["cocobase_realtime.W056"]
    input_limits.limit_input(HypercornStream().app_send)
    assert caplog.messages == []

"""The conformance scenarios that a client must pass, whatever its language.

Each scenario is a conversation between a scripted server and a client that is driven by commands
(``drivers.py``). A client in another language needs a driver of its own to run them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import Any

from tests.clients.scenarios import (
    authentication,
    connection_loss,
    counts,
    failures,
    identity,
    javascript,
    lifecycle,
    live,
    mistakes,
    moves,
    rates,
    resyncs,
    rooms,
    settling,
    subscriptions,
    windows,
)

Scenario = Callable[..., Coroutine[Any, Any, None]]


def _find(*modules: ModuleType) -> dict[str, Scenario]:
    """Return the scenarios in modules by name: the functions whose first argument is a server."""
    return {
        name: function
        for module in modules
        for name, function in vars(module).items()
        if inspect.iscoroutinefunction(function)
        and function.__module__ == module.__name__
        and next(iter(inspect.signature(function).parameters), "") == "server"
    }


# what every client must do
SCENARIOS = _find(
    authentication,
    subscriptions,
    live,
    connection_loss,
    rooms,
    failures,
    settling,
    identity,
    rates,
    windows,
    counts,
    moves,
    resyncs,
    mistakes,
    lifecycle,
)
# what the JavaScript client must also do
JAVASCRIPT_SCENARIOS = SCENARIOS | _find(javascript)

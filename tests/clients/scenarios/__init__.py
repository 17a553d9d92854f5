"""The conformance scenarios that a client must pass, whatever its language.

Each scenario is a conversation between a scripted server and a client that is driven by commands
(``drivers.py``). A client in another language needs a driver of its own to run them.
"""

from __future__ import annotations

import inspect

from tests.clients.scenarios import (
    authentication,
    connection_loss,
    failures,
    live,
    rooms,
    subscriptions,
)

SCENARIOS = {
    name: function
    for module in (authentication, subscriptions, live, connection_loss, rooms, failures)
    for name, function in vars(module).items()
    if inspect.iscoroutinefunction(function)
    and function.__module__ == module.__name__
    and next(iter(inspect.signature(function).parameters), "") == "server"
}

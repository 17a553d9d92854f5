"""The conformance list: what a client of ours does, whatever the language.

Each scenario is a conversation between a scripted server and a client that is driven by commands
(``drivers.py``). Whoever writes another client runs it against these.
"""

from __future__ import annotations

import inspect

from tests.clients.scenarios import authentication, connection_loss, live, rooms, subscriptions

SCENARIOS = {
    name: function
    for module in (authentication, subscriptions, live, connection_loss, rooms)
    for name, function in vars(module).items()
    if inspect.iscoroutinefunction(function) and function.__module__ == module.__name__
}

"""What a session wants done. The consumer does it and answers with the result."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..events import Broadcast
from ..fanout.subscriptions import Begin, Subscription
from ..wire.codes import CloseCode
from ..wire.native import Frame


@dataclass(frozen=True, slots=True)
class Send:
    """Send a frame. Result: None."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class Close:
    """Say ``closing`` and close; nothing more is read. Result: None."""

    code: CloseCode
    retry_after_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Ask the authenticators. Result: an ``Identity`` or None."""

    token: str | None


@dataclass(frozen=True, slots=True)
class Admit:
    """Count the new identity's connection. Result: False where it has too many."""


@dataclass(frozen=True, slots=True)
class Batch:
    """From now on, events that wait together may leave as one frame. Result: None."""


@dataclass(frozen=True, slots=True)
class Expire:
    """Watch over the identity's ``expires_at``, anew after a refresh. Result: None."""


@dataclass(frozen=True, slots=True)
class Reconsider:
    """Ask anew what the connection may watch: its identity was refreshed. Result: None."""


@dataclass(frozen=True, slots=True)
class Authorize:
    """Ask the collection's permission. Result: a ``Grant``, None where it is refused or unknown."""

    collection: str
    filters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Prepare:
    """Follow a collection. Result: its ``Extent`` so far, None where it has no log.

    ``Attach`` follows in the same breath.
    """

    collection: str


@dataclass(frozen=True, slots=True)
class Attach:
    """Start a prepared subscription, in place of one of the same name. Result: None.

    Live at once, or after what it is to ``begin`` with.
    """

    subscription: Subscription
    begin: Begin | None = None


@dataclass(frozen=True, slots=True)
class Detach:
    """End a subscription. Result: None."""

    subscription: Subscription


@dataclass(frozen=True, slots=True)
class Enter:
    """Enter a room. Result: its members, a list of ``{"id", "name"}``."""

    room: str


@dataclass(frozen=True, slots=True)
class Exit:
    """Leave a room. Result: None."""

    room: str


@dataclass(frozen=True, slots=True)
class Say:
    """Send a broadcast to its room. Result: False where the channel layer did not take it."""

    event: Broadcast


Effect = (
    Send
    | Close
    | Authenticate
    | Admit
    | Batch
    | Expire
    | Reconsider
    | Authorize
    | Prepare
    | Attach
    | Detach
    | Enter
    | Exit
    | Say
)
Steps: TypeAlias = Generator[Effect, Any, None]
"""Effects in order; each is answered with its result before the next one is made."""

"""A subscription of a client, without I/O: makes its requests and handles its frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .backoff import Repetition
from .cursors import CursorTracker
from .errors import RealtimeError
from .interfaces import Frame, SubscriptionListener
from .rates import Request
from .requests import CONNECTION_LOST, RequestChannel

# a scope with which no cursor is valid, since no hash is empty
NO_SCOPE = ""


class Subscription:
    """A subscription, which after a reconnection is requested again from its last position."""

    def __init__(
        self,
        channel: RequestChannel,
        name: str,
        collection: str,
        options: Mapping[str, Any],
        listener: SubscriptionListener,
        on_ended: Callable[[Subscription], None],
    ) -> None:
        self.name = name
        self.collection = collection
        # whether the server has accepted it on the current connection
        self.active = False
        # whether events are stopped by `pause`
        self.paused = False
        # the server's hash of what the subscription may see; a cursor is valid only with it
        self.scope: str | None = None
        self._channel = channel
        self._listener = listener
        # called when the subscription is stopped by the program, or refused
        self._on_ended = on_ended
        self._ended = False
        # current options: keys of the `subscribe` frame, except the names and the position
        self._options = self._prepare(options)
        # the last `subscribe` request on the current connection
        self._request: Request | None = None
        # whether a `subscribe` request was sent on the current connection
        self._requested = False
        # options that were requested to replace them, and are not accepted or refused yet
        self._new_options: dict[str, Any] | None = None
        self._position = CursorTracker()
        # whether there may be events after the position that were dropped because of a pause
        self._missed_events = False
        # delays of further requests after the server's code failed
        self._repetition = Repetition()
        # documents of a snapshot whose pages have not all arrived; None if there is no such
        self._snapshot: list[Frame] | None = None
        # parts of a move that is not complete, or waits for the snapshot before it
        self._moves: list[Frame] = []
        # whether the first result of a window or of aggregates has not arrived completely
        self._awaits_result = False
        # whether this result may be the one that is shown, so that only a `cursor` arrives
        self._may_be_unchanged = False
        # parts of a change of this result that is not complete
        self._parts: list[Frame] = []

    @property
    def options(self) -> dict[str, Any]:
        """The options that were requested last: keys of the ``subscribe`` frame."""
        return self._options if self._new_options is None else self._new_options

    @property
    def cursor(self) -> str | None:
        """The position up to which all events have arrived; None before it is known."""
        return self._position.cursor

    def start(self) -> None:
        """Request the subscription, from the current position if there is one."""
        if self.paused or self._ended:
            return
        options = self.options
        position = {}
        if self._new_options is None and self.cursor is not None:
            position = {"since": self.cursor, "scope": self.scope}
        elif self._missed_events and self.cursor is not None:
            # a cursor is not valid with other options; the server answers with a `resync`
            position = {"since": self.cursor, "scope": NO_SCOPE}

        def handle_reply(reply: Frame) -> None:
            if reply["type"] == "error":
                self._handle_refusal(reply, options)
            else:
                self._handle_subscribed(reply, options)

        self._withdraw()
        self._request = self._channel.send_request(
            {"type": "subscribe", **self._names, **options, **position}, handle_reply
        )

    def update(self, options: Mapping[str, Any]) -> None:
        """Replace some options. If the server refuses, the subscription keeps the old ones.

        Raises ``TypeError`` or ``ValueError`` for values that the server cannot read, and
        `RealtimeError` if the subscription has ended.
        """
        if self._ended:
            raise RealtimeError("closed", "The subscription has ended.", subscription=self.name)
        self._new_options = self._prepare({**self.options, **options})
        # the program may read no events before the update is accepted
        self.paused = False
        if self._channel.connected:
            self.start()

    def stop(self) -> None:
        """End the subscription and unsubscribe."""
        self._channel.check_thread()
        if not self._ended:
            self.end()
            self._on_ended(self)
            self._unsubscribe()

    def end(self) -> None:
        """Mark the subscription as ended, so that it makes no further requests."""
        self._ended = True

    def pause(self) -> None:
        """Unsubscribe until `unpause`, which continues from the same position.

        Do nothing while the program waits for an update.
        """
        if self._new_options is not None:
            return
        self.paused = self._missed_events = True
        self.active = False
        self._unsubscribe()

    def unpause(self) -> None:
        """Subscribe again after `pause`."""
        self.paused = False
        if self._channel.connected:
            self.start()

    def handle_disconnect(self) -> None:
        """Handle the loss of the connection; `start` is called on the next one."""
        self.active = self._requested = False
        self._request = None
        self._drop_parts()

    def handle_user_changed(self) -> None:
        """Begin again without a position, for another user; `start` must be called."""
        self.active = self.paused = self._missed_events = False
        self.scope = None
        self._position = CursorTracker()
        self._snapshot, self._moves, self._parts = None, [], []
        self._options = _without_position(self._options)
        if self._new_options is not None:
            self._new_options = _without_position(self._new_options)
        self._listener.on_user_changed()

    def handle_permissions_changed(self) -> None:
        """Forget the scope, so that the server refuses to continue from the last position."""
        self.scope = NO_SCOPE

    def handle_failure(self, frame: Frame) -> None:
        """Handle an ``error`` with which the server has ended the subscription."""
        self.active = False
        self._drop_parts()
        self._handle_refusal(frame, self._options)

    def handle_events_end(self) -> None:
        """Handle that all events of one frame were handled."""
        self._listener.on_events_end()

    def handle_frame(self, frame: Frame) -> None:
        """Handle an event of this subscription, or another frame that names it."""
        if self.paused or not self.active:
            # sent before the server received the `unsubscribe` of a pause; using it would move
            # the cursor past events that were dropped
            return
        match frame["type"]:
            case "event":
                if self._position.advance(frame):
                    self._listener.on_event(frame)
            case "cursor":
                self._handle_cursor(frame["cursor"])
            case "moved":
                self._moves.append(frame)
                self._finish_move()
            case "window" | "aggregate":
                self._handle_part(frame)
            case "resync":
                self._load(frame, frame["reason"])
            case "snapshot" if self._snapshot is not None:
                self._snapshot += frame["documents"]
                if not frame["more"]:
                    documents, self._snapshot = self._snapshot, None
                    self._position.cursor = frame["cursor"]
                    self._listener.on_snapshot(documents, frame.get("truncated", False))
                    self._report_ready()
                    self._finish_move()

    def _handle_cursor(self, cursor: str) -> None:
        """Handle that nothing has changed up to a position."""
        is_loading = self._awaits_result and not self._may_be_unchanged
        if self._snapshot is None and not self._parts and not is_loading:
            self._position.cursor = cursor
            if self._awaits_result:
                self._awaits_result = False
                self._report_ready()

    def _handle_part(self, frame: Frame) -> None:
        """Pass a change of a window or of aggregates on when its last part arrives.

        Before, the old scope and position are kept, which belong to the result that is shown.
        """
        if frame.get("reset"):
            self._parts = []
        self._parts.append(frame)
        if frame.get("partial"):
            return
        parts, self._parts = self._parts, []
        self._position.cursor, self._awaits_result = frame["cursor"], False
        self.scope = frame.get("scope", self.scope)
        self._listener.on_result(parts)
        self._report_ready()

    def _drop_parts(self) -> None:
        """Forget the parts that have arrived, so that the whole result is requested again."""
        if self._parts:
            self._parts, self._position.cursor = [], None

    def _finish_move(self) -> None:
        """Pass a move on if its last part has arrived.

        Before, the old scope and position are kept, from which a new connection continues.
        """
        if not self._moves or self._moves[-1]["more"] or self._snapshot is not None:
            return
        parts, self._moves = self._moves, []
        self.scope, self._position.cursor = parts[-1]["scope"], parts[-1]["cursor"]
        for part in parts:
            for id in part["left"]:
                self._pass_on("left", {"id": id})
            for document in part["entered"]:
                self._pass_on("entered", document)

    def _pass_on(self, event: str, document: Frame) -> None:
        """Pass a document of a move on as an event, which has no cursor of its own."""
        frame = {"type": "event", "collection": self.collection}
        self._listener.on_event({**frame, "event": event, "document": document})

    def _handle_subscribed(self, reply: Frame, options: dict[str, Any]) -> None:
        is_complete = self.active and self.cursor is not None
        is_extended = is_complete and _has_other_limit(self._options, options)
        self._may_be_unchanged = is_extended or reply.get("resumed", False)
        self.active = not self.paused
        self._missed_events = self.paused
        self._repetition.reset()
        # a position that the program gave is used once
        self._options = _without_position(options)
        if self._new_options is options:
            self._new_options = None
        if reply.get("resumed"):
            self.scope = reply.get("scope")
            self._snapshot, self._moves = None, []
            self._awaits_result = self._has_result
            if not self._awaits_result:
                self._report_ready()
        else:
            self._load(reply, reply["resync"]["reason"] if "resync" in reply else None)

    def _load(self, frame: Frame, resync_reason: str | None) -> None:
        """Begin from the position in a frame, or with the result that follows it."""
        self.scope = frame.get("scope")
        self._position = CursorTracker()
        self._snapshot, self._moves = None, []
        self._awaits_result = self._has_result
        if resync_reason is not None:
            self._listener.on_resync(resync_reason)
        if self._awaits_result:
            return  # the cursor comes with the complete result
        if self._options.get("snapshot"):
            # the cursor stays unknown until the last page: after a loss in the middle of the
            # snapshot, the client must not resume as if it had all of it
            self._snapshot = []
        else:
            self._position.cursor = frame.get("cursor")
            self._report_ready()

    def _handle_refusal(self, reply: Frame, options: dict[str, Any]) -> None:
        if reply is CONNECTION_LOST or self._ended:
            return
        if self._new_options is not None and self._new_options is not options:
            return  # newer options have been requested since
        error = RealtimeError.from_frame(reply)
        error.subscription = self.name
        if error.is_failure and self._new_options is None:
            delay = self._repetition.next_delay(error.retry_after_ms)
            self._start_later(delay)
            self._listener.on_failure(error)
            return
        if reply.get("retry_after_ms") is not None:
            self._start_later(reply["retry_after_ms"] / 1000)
            return
        final = self._new_options is not options
        if final:
            self.end()
            self._on_ended(self)
        else:
            self._new_options = None
            if not self.active and error.is_failure:
                self._start_later(self._repetition.next_delay(error.retry_after_ms))
            elif not self.active:
                self.start()
        self._listener.on_error(error, final=final)
        if self.active and self._snapshot is None and not self._awaits_result:
            self._report_ready()  # with the old options

    def _start_later(self, delay: float) -> None:
        """Request the subscription again, unless that happens before for another reason."""
        self._channel.repeat_later(delay, lambda: self._request, self.start)

    def _report_ready(self) -> None:
        if self._new_options is None:
            self._listener.on_ready()

    def _prepare(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return a copy of the options that the server can read, without those that are None."""
        options = {name: value for name, value in options.items() if value is not None}
        frame = self._channel.prepare({"type": "subscribe", **self._names, **options})
        return {name: value for name, value in frame.items() if name in options}

    @property
    def _has_result(self) -> bool:
        """Whether the server computes a window or aggregates, instead of sending events."""
        return "window" in self._options or "aggregate" in self._options

    @property
    def _names(self) -> dict[str, str]:
        return {"subscription": self.name, "collection": self.collection}

    def _withdraw(self) -> None:
        """Cancel the last request if it was not sent."""
        if self._request is not None:
            self._request.cancel()
            self._requested = self._requested or self._request.was_sent
            self._request = None

    def _unsubscribe(self) -> None:
        """Unsubscribe if the server knows the subscription."""
        self._withdraw()
        if self._requested:
            self._requested = False
            self._channel.send_request({"type": "unsubscribe", "subscription": self.name})


def _has_other_limit(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Return whether options of a window differ only in its limit."""
    windows = [options.get("window") for options in (old, new)]
    if None in windows or {**old, "window": None} != {**new, "window": None}:
        return False
    first, second = ({**window, "limit": None} for window in windows if window is not None)
    return first == second


def _without_position(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in ("since", "scope")}


# requests a subscription to a collection with the given options
Subscribe = Callable[[str, Mapping[str, Any], SubscriptionListener], Subscription]

"""The tokens that a client authenticates with."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import Any

# a token, or a plain or asynchronous function that returns one
Token = str | Callable[[], str | Awaitable[str | None] | None] | None


class TokenSource:
    """Gets tokens from the program, within a time limit."""

    def __init__(self, token: Token, timeout: float) -> None:
        if not (token is None or isinstance(token, str) or callable(token)):
            raise TypeError(f"token must be a string or a function, not {type(token).__name__}.")
        self._token = token
        # seconds that a function may take
        self._timeout = timeout

    @property
    def is_renewable(self) -> bool:
        """Whether there is a function that may return another token."""
        return callable(self._token)

    async def fetch(self) -> str | None:
        """Return a token, or None if the handshake is to authenticate the client.

        Raises what the function raises, ``TimeoutError`` if it takes too long, or ``TypeError`` if
        it returns something else.
        """
        if not callable(self._token):
            return self._token
        try:
            async with asyncio.timeout(self._timeout):
                token = await self._call(self._token)
        except TimeoutError as error:
            if error.args:
                raise  # raised by the function
            message = f"The token function took more than {self._timeout:g} seconds."
            raise TimeoutError(message) from None
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise RuntimeError("The token function was cancelled.") from error
        except SystemExit as error:
            if threading.current_thread() is threading.main_thread():
                raise
            raise RuntimeError(f"The token function raised {error!r}.") from error
        if token is None or isinstance(token, str):
            return token
        raise TypeError(
            f"The token function returned {type(token).__name__}, not a string or None."
        )

    async def _call(self, function: Callable[[], Any]) -> Any:
        if inspect.iscoroutinefunction(function):
            return await function()
        token = await _run_in_thread(function)
        return await token if inspect.isawaitable(token) else token


async def _run_in_thread(function: Callable[[], Any]) -> Any:
    """Call a function in a daemon thread.

    A function that hangs blocks neither the event loop nor, unlike in the threads of an executor,
    the end of the program.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if future.done():
            if inspect.iscoroutine(result):
                result.close()
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def run() -> None:
        result: Any = None
        error: Exception | None = None
        try:
            result = function()
        except StopIteration as stop:
            error = RuntimeError(f"The token function raised {stop!r}.")
        except Exception as caught:
            error = caught
        except BaseException as caught:  # in a thread, it does not end the program
            error = RuntimeError(f"The token function raised {caught!r}.")
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, result, error)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(run,), name="realtime-token", daemon=True).start()
    return await future

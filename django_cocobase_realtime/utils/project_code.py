"""Calls of the project's own code, such as permissions and serializers, which may raise anything.

An exception of the project must affect only what it was called for. `calling` converts it to
`ProjectCodeFailed`, which the caller catches where it can refuse one request, subscription or row,
and logs there. Exceptions that mean that the database does not answer are not converted:
the request may succeed later.
"""

from __future__ import annotations

import inspect
import logging
import sqlite3
import traceback
from types import TracebackType
from typing import Any

from django.db import InterfaceError, OperationalError

from .repeated_log import omitted_text, repeated_log

logger = logging.getLogger(__name__)

# exceptions which mean that the database does not answer now
DATABASE_UNAVAILABLE = (OperationalError, InterfaceError)
# characters of an exception's message that are logged
MAX_MESSAGE = 2000
# characters of a traceback, with the exceptions that caused it, that are logged
MAX_TRACEBACK = 20_000


class ProjectCodeFailed(Exception):
    """Code of the project raised an exception, which is the ``__cause__`` of this one."""

    def __init__(
        self,
        subject: str,
        method: str,
        credential: str | None = None,
        *,
        kind: str | None = None,
        secret: bool = False,
    ) -> None:
        super().__init__(subject, method)
        # what the code belongs to, for example "collection 'orders'"
        self.subject = subject
        # name of the method, for example "OwnOrders.can_subscribe"
        self.method = method
        # `Identity.credential` of the client, or None if the call was for no single client
        self.credential = credential
        # the declaration that the subject is one of; a client can name many rooms of one
        self.kind = subject if kind is None else kind
        # whether the message of the exception may contain a secret, such as a token
        self.secret = secret

    def __str__(self) -> str:
        return f"{self.method} of {self.subject} failed"

    def log(self) -> None:
        """Log the failure with its traceback, without secrets.

        The same failure is logged once per minute: that of one method, with one type of exception,
        for one client. See `RepeatedLog`.
        """
        cause = self.__cause__
        omitted = repeated_log.admit((self.kind, self.method, type(cause)), self.credential)
        if omitted is None:
            return
        client = "" if self.credential is None else f" for {self.credential}"
        text, more = _shorten(f"{self}{client}"), omitted_text(omitted)
        if cause is None:
            logger.error("%s%s", text, more)
        elif self.secret:
            lines = "".join(traceback.format_tb(cause.__traceback__))[-MAX_TRACEBACK:]
            logger.error("%s: %s%s\n%s", text, type(cause).__name__, more, lines)
        elif _is_short(cause):
            logger.error("%s: %s%s", text, _describe(cause), more, exc_info=cause)
        else:  # without the message of the exception in the traceback
            lines = "".join(traceback.format_tb(cause.__traceback__))[-MAX_TRACEBACK:]
            logger.error("%s: %s%s\n%s", text, _describe(cause), more, lines)


def _is_short(error: BaseException) -> bool:
    return (
        len("".join(traceback.format_exception_only(error))) <= MAX_MESSAGE
        and len("".join(traceback.format_exception(error))) <= MAX_TRACEBACK
    )


def _describe(error: BaseException) -> str:
    try:
        return _shorten(repr(error))
    except Exception:  # of the project's own class
        return type(error).__name__


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}…"


class calling:  # noqa: N801 - a context manager, named like a function
    """Raise `ProjectCodeFailed` from an exception of the project's code in the block.

    The arguments are those of `ProjectCodeFailed`.
    """

    # a class, because it is used for each row, and is faster than a generator
    __slots__ = ("_credential", "_kind", "_method", "_subject")

    def __init__(
        self, subject: str, method: str, credential: str | None = None, *, kind: str | None = None
    ) -> None:
        self._subject = subject
        self._method = method
        self._credential = credential
        self._kind = kind

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not isinstance(error, Exception) or isinstance(error, ProjectCodeFailed):
            return
        if is_unavailable(error):
            return
        raise ProjectCodeFailed(
            self._subject, self._method, self._credential, kind=self._kind
        ) from error


def is_unavailable(error: Exception) -> bool:
    """Return whether an exception means that a database does not answer now.

    SQLite uses the same type also for mistakes in SQL, such as a table that does not exist.
    """
    if not isinstance(error, DATABASE_UNAVAILABLE):
        return False
    return getattr(error.__cause__, "sqlite_errorcode", None) != sqlite3.SQLITE_ERROR


def synchronous(result: Any) -> Any:
    """Return the result of a method. Raises ``TypeError`` if the method is asynchronous.

    A coroutine is true, so that ``async def can_join`` would allow everything.
    """
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise TypeError("The method must be synchronous: write def instead of async def.")
    return result

"""Calls of the project's own code, such as permissions and serializers, which may raise anything.

An exception of the project must affect only what it was called for. `calling` converts it to
`ProjectCodeFailed`, which the caller catches where it can refuse one request, subscription or row,
and logs there, once. Exceptions that mean that the database does not answer are not converted:
the request may succeed later.
"""

from __future__ import annotations

import inspect
import logging
import sqlite3
import time
import traceback
from types import TracebackType
from typing import Any

from django.db import InterfaceError, OperationalError

logger = logging.getLogger(__name__)

# exceptions which mean that the database does not answer now
DATABASE_UNAVAILABLE = (OperationalError, InterfaceError)
# seconds within which `ProjectCodeFailed.log_once` does not log the same failure again
LOG_INTERVAL = 60.0
# number of failures that `ProjectCodeFailed.log_once` remembers
MAX_REMEMBERED = 1000

# times at which `log_once` logged a failure, by what failed and the type of the exception
_logged_at: dict[tuple[str, str, type | None], float] = {}


class ProjectCodeFailed(Exception):
    """Code of the project raised an exception, which is the ``__cause__`` of this one."""

    def __init__(
        self, subject: str, method: str, credential: str | None = None, *, secret: bool = False
    ) -> None:
        super().__init__(subject, method)
        # what the code belongs to, for example "collection 'orders'"
        self.subject = subject
        # name of the method, for example "OwnOrders.can_subscribe"
        self.method = method
        # `Identity.credential` of the client, or None if the call was for no single client
        self.credential = credential
        # whether the message of the exception may contain a secret, such as a token
        self.secret = secret

    def __str__(self) -> str:
        return f"{self.method} of {self.subject} failed"

    def log(self) -> None:
        """Log the failure with its traceback, without secrets."""
        cause = self.__cause__
        client = "" if self.credential is None else f" for {self.credential}"
        if self.secret and cause is not None:
            lines = "".join(traceback.format_tb(cause.__traceback__))
            logger.error("%s%s: %s\n%s", self, client, type(cause).__name__, lines)
        else:
            logger.error("%s%s: %r", self, client, cause, exc_info=cause)

    def log_once(self) -> None:
        """Log the failure, unless the same was logged within the last minute.

        For code that is called for each row, which would otherwise fill the log.
        """
        cause, now = self.__cause__, time.monotonic()
        key = (self.subject, self.method, None if cause is None else type(cause))
        logged_at = _logged_at.get(key)
        if logged_at is not None and now - logged_at < LOG_INTERVAL:
            return
        if len(_logged_at) >= MAX_REMEMBERED:
            _logged_at.clear()
        _logged_at[key] = now
        self.log()


class calling:  # noqa: N801 - a context manager, named like a function
    """Raise `ProjectCodeFailed` from an exception of the project's code in the block.

    The arguments are those of `ProjectCodeFailed`.
    """

    # a class, because it is used for each row, and is faster than a generator
    __slots__ = ("_credential", "_method", "_secret", "_subject")

    def __init__(
        self, subject: str, method: str, credential: str | None = None, *, secret: bool = False
    ) -> None:
        self._subject = subject
        self._method = method
        self._credential = credential
        self._secret = secret

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
            self._subject, self._method, self._credential, secret=self._secret
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

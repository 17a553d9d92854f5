"""Authentication and error responses, which all views use."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Coroutine, Hashable
from functools import wraps
from typing import Any, TypeVar

from django.db import Error as DatabaseFailure
from django.http import HttpRequest, HttpResponse, JsonResponse

from ..auth.backends import AuthenticationUnavailable
from ..auth.http import TooManyAttempts, identify, request_address
from ..conf import conf
from ..identity import Identity, account_of
from ..presence.base import PresenceUnavailable
from ..utils.concurrency import set_owner
from ..utils.fair_queue import Owner
from ..utils.limits import DelayedAnswers, KeyedRate
from ..utils.project_code import ProjectCodeFailed
from ..utils.repeated_log import log_repeated

logger = logging.getLogger(__name__)

# milliseconds after which an address may try again whose authentication failed often
RETRY_AFTER_FAILURES_MS = 1000
# seconds by which the answer to a request beyond the rate is delayed, so that a client that ignores
# it cannot keep the server busy
REFUSAL_DELAY = 0.2
_TOO_MANY = "Too many requests; try again after Retry-After."

# the requests to this process by address, and by user or key
_rates = KeyedRate()
# answers that are being delayed
_delayed = DelayedAnswers()

R = TypeVar("R", bound=HttpResponse)
View = Callable[[HttpRequest], Coroutine[Any, Any, HttpResponse]]


class RequestRefused(Exception):
    """Raised to answer a request with an error status and a JSON object with a ``detail``."""

    def __init__(
        self, status: int, detail: str, *, retry_after_ms: int | None = None, **more: Any
    ) -> None:
        super().__init__(detail)
        # HTTP status code
        self.status = status
        # HTTP headers; `Retry-After` is in seconds
        self.headers = {}
        if retry_after_ms is not None:
            self.headers["Retry-After"] = str(math.ceil(retry_after_ms / 1000))
        # the JSON object of the response
        self.body = {"detail": detail, **more}


def json_errors(view: View) -> View:
    """Make a view answer with JSON if it raises `RequestRefused`, or if a store is unavailable.

    The status is 503 if the database, the presence backend or the server of token keys fails, and
    500 if code of the project raises, for example an authenticator.
    """

    @wraps(view)
    async def call(request: HttpRequest) -> HttpResponse:
        try:
            return await view(request)
        except RequestRefused as refused:
            return JsonResponse(refused.body, status=refused.status, headers=refused.headers)
        except ProjectCodeFailed as failure:
            failure.log()
            return JsonResponse({"detail": "An error in the server's code."}, status=500)
        except (DatabaseFailure, AuthenticationUnavailable, PresenceUnavailable) as error:
            text = "A request could not be answered: %r"
            log_repeated(logger, logging.WARNING, text, error, kind=type(error).__name__)
            return JsonResponse({"detail": "Unavailable; try again."}, status=503)

    return call


def without_log(response: R) -> R:
    """Return a response that Django does not log although its status is that of an error."""
    unlogged: Any = response
    unlogged._has_been_logged = True
    return response


async def require_identity(request: HttpRequest) -> Identity:
    """Return the identity of a request.

    Raises `RequestRefused` without a valid credential, and if the address, the user or the key
    sends too many requests.
    """
    address = request_address(request)
    await check_rate(("address", address), address)
    try:
        identity = await identify(request)
    except TooManyAttempts:
        raise RequestRefused(429, _TOO_MANY, retry_after_ms=RETRY_AFTER_FAILURES_MS) from None
    if identity is None:
        raise RequestRefused(401, "Send a valid key in X-API-Key, or as a Bearer token.")
    account = account_of(identity, address)
    await check_rate(account, address)
    set_owner(Owner(account, "http"))
    return identity


async def check_rate(key: Hashable, address: str) -> None:
    """Count a request of an address, a user or a key. Raises `RequestRefused` if it is too much."""
    wait_ms = _rates.acquire(key, conf.limits.http_rate, time.monotonic())
    if wait_ms:
        if not _delayed.are_many(address):
            await _delayed.wait(address, REFUSAL_DELAY)
        raise RequestRefused(429, _TOO_MANY, retry_after_ms=wait_ms)

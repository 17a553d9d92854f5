"""Authentication and error responses, which all views use."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from django.db import Error as DatabaseFailure
from django.http import HttpRequest, JsonResponse

from ..auth.backends import AuthenticationUnavailable
from ..auth.http import identify
from ..identity import Identity
from ..presence.base import PresenceUnavailable
from ..utils.project_code import ProjectCodeFailed

logger = logging.getLogger(__name__)

View = Callable[[HttpRequest], Coroutine[Any, Any, JsonResponse]]


class RequestRefused(Exception):
    """Raised to answer a request with an error status and a JSON object with a ``detail``."""

    def __init__(self, status: int, detail: str, **more: Any) -> None:
        super().__init__(detail)
        # HTTP status code
        self.status = status
        # the JSON object of the response
        self.body = {"detail": detail, **more}


def json_errors(view: View) -> View:
    """Make a view answer with JSON if it raises `RequestRefused`, or if a store is unavailable.

    The status is 503 if the database, the presence backend or the server of token keys fails, and
    500 if code of the project raises, for example an authenticator.
    """

    @wraps(view)
    async def call(request: HttpRequest) -> JsonResponse:
        try:
            return await view(request)
        except RequestRefused as refused:
            return JsonResponse(refused.body, status=refused.status)
        except ProjectCodeFailed as failure:
            failure.log()
            return JsonResponse({"detail": "An error in the server's code."}, status=500)
        except (DatabaseFailure, AuthenticationUnavailable, PresenceUnavailable) as error:
            logger.warning("A request could not be answered: %r", error)
            return JsonResponse({"detail": "Unavailable; try again."}, status=503)

    return call


async def require_identity(request: HttpRequest) -> Identity:
    """Return the identity of a request. Raises `RequestRefused` without a valid credential."""
    identity = await identify(request)
    if identity is None:
        raise RequestRefused(401, "Send a valid key in X-API-Key, or as a Bearer token.")
    return identity

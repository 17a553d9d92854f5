"""The endpoint ``GET metrics``, which Prometheus reads."""

from __future__ import annotations

import asyncio
import secrets
from hashlib import sha256

from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from ..auth.http import credential, request_address
from ..conf import conf
from ..hub.measures import Measures, measure
from ..log.reader import StreamRange, stream_ranges
from ..utils.concurrency import run_in_threadpool, set_owner
from ..utils.fair_queue import SERVER
from .base import RequestRefused, check_rate, json_errors
from .exposition import State, render

# what a member of the staff needs without a token
PERMISSION = "cocobase_realtime.view_connections"
# seconds after which the lag is left out, because the database does not answer
HEADS_TIMEOUT = 2.0


@never_cache
@require_GET
@transaction.non_atomic_requests
@json_errors
async def metrics(request: HttpRequest) -> HttpResponse:
    """Return the metrics of this process, for ``METRICS_TOKEN`` or staff with the permission.

    The status is 404 for others if there is no token, 401 if there is one, and 501 without
    prometheus-client.
    """
    address = request_address(request)
    await check_rate(("address", address), address)
    if not _has_token(request) and not await run_in_threadpool(_is_permitted, request):
        if conf.metrics_token is None:
            raise RequestRefused(404, "Not found.")
        raise RequestRefused(401, "Send METRICS_TOKEN as a Bearer token.")
    measures = await measure()
    try:
        content, content_type = render(
            State(measures, await _read_heads(measures)), request.headers.get("Accept", "")
        )
    except ImportError:
        raise RequestRefused(
            501, "Install prometheus-client: pip install django-cocobase-realtime[metrics]."
        ) from None
    return HttpResponse(content, content_type=content_type)


def _has_token(request: HttpRequest) -> bool:
    expected, given = conf.metrics_token, credential(request)
    if expected is None or given is None:
        return False
    return secrets.compare_digest(_digest(given), _digest(expected))


def _digest(text: str) -> bytes:
    """Return a digest of a token, so that the time of a comparison does not depend on its text."""
    return sha256(text.encode()).digest()


def _is_permitted(request: HttpRequest) -> bool:
    """Return whether a logged-in user may see who is connected. May use the ORM."""
    user = getattr(request, "user", None)
    if user is None or not user.is_active or not getattr(user, "is_staff", False):
        return False
    return bool(user.has_perm(PERMISSION))


async def _read_heads(measures: Measures) -> dict[str, dict[str, StreamRange]]:
    """Return the last events of the streams that this process follows, as far as they are known."""
    set_owner(SERVER)
    heads: dict[str, dict[str, StreamRange]] = {}
    try:
        async with asyncio.timeout(HEADS_TIMEOUT):
            for using, positions in measures.positions.items():
                heads[using] = await run_in_threadpool(stream_ranges, using, list(positions))
    except Exception:  # the other metrics are needed most when the database does not answer
        return heads
    return heads

"""Health checks for load balancers and orchestrators."""

from __future__ import annotations

from django.db import Error as DatabaseFailure
from django.db import connections
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from ..hub.drain import drain
from ..pubsub.layer import channel_layer
from .base import without_log


@never_cache
@require_safe
def health(request: HttpRequest) -> JsonResponse:
    """Answer with status 200, which shows that the process is running."""
    return JsonResponse({"status": "ok"})


@never_cache
@require_safe
def ready(request: HttpRequest) -> JsonResponse:
    """Answer with 200 if the database answers and a channel layer is configured, else with 503.

    The status is also 503 from the moment at which the process is asked to stop.
    """
    if drain.is_draining:
        # Django would log a planned stop as an error, for each check, and mail it to ADMINS
        return without_log(JsonResponse({"status": "draining"}, status=503))
    try:
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseFailure:
        return JsonResponse({"status": "database unavailable"}, status=503)
    if channel_layer() is None:
        return JsonResponse({"status": "no channel layer"}, status=503)
    return JsonResponse({"status": "ok"})

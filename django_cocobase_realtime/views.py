"""HTTP next to the sockets: for load balancers and people."""

from __future__ import annotations

from django.db import DatabaseError, connections
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from .fanout.broker import channel_layer


@never_cache
@require_safe
def health(request: HttpRequest) -> JsonResponse:
    """200 while the process answers at all."""
    return JsonResponse({"status": "ok"})


@never_cache
@require_safe
def ready(request: HttpRequest) -> JsonResponse:
    """200 where the database answers and a channel layer is configured, else 503."""
    try:
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return JsonResponse({"status": "database unavailable"}, status=503)
    if channel_layer() is None:
        return JsonResponse({"status": "no channel layer"}, status=503)
    return JsonResponse({"status": "ok"})

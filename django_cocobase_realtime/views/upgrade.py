"""The answer to ordinary HTTP requests for the address of WebSockets."""

from __future__ import annotations

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt

from ..transport.missing_upgrade import GUIDE, explain, is_handshake
from .base import without_log

_FOR_CLIENTS = """\
426 Upgrade Required: the WebSocket handshake arrived as an ordinary HTTP request.

{cause}
See {guide} of django-cocobase-realtime.
"""
_FOR_VISITORS = """\
426 Upgrade Required: this address accepts WebSockets only.

Connect with the JavaScript client, the Python client or another WebSocket client.
"""


@csrf_exempt
@never_cache
def upgrade_required(request: HttpRequest) -> HttpResponse:
    """Answer with 426 and a text for developers.

    The warning about a proxy that drops the upgrade headers is logged by
    `transport.missing_upgrade`.
    """
    text = _FOR_VISITORS
    if is_handshake(request.headers):
        headers = {name.lower(): value for name, value in request.headers.items()}
        text = _FOR_CLIENTS.format(cause=explain(headers), guide=GUIDE)
    response = HttpResponse(text, status=426, content_type="text/plain; charset=utf-8")
    # WSGI applications and responses in HTTP/2 must not have these headers
    if isinstance(request, ASGIRequest) and request.scope.get("http_version", "1.1")[0] == "1":
        response["Upgrade"] = "websocket"
        response["Connection"] = "Upgrade"
    # Django would log a line for each of these responses, and clients try again and again
    return without_log(response)

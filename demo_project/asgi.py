"""ASGI application: HTTP goes to Django, WebSockets go to the realtime engine."""

import os

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

from demo_project.board.reconnect import OutageMiddleware
from django_cocobase_realtime.routing import realtime_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo_project.settings")
application = ProtocolTypeRouter(
    {"http": get_asgi_application(), "websocket": OutageMiddleware(realtime_application())}
)

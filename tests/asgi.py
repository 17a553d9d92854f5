"""The ASGI application of the test project, as the README describes it."""

import os

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

from django_cocobase_realtime.routing import realtime_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
application = ProtocolTypeRouter(
    {"http": get_asgi_application(), "websocket": realtime_application()}
)

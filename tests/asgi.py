"""The ASGI application of the test project, as the README describes it."""

import os

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

from django_cocobase_realtime.routing import realtime_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
application = ProtocolTypeRouter(
    {"http": get_asgi_application(), "websocket": realtime_application()}
)
if seconds := os.environ.get("REALTIME_TEST_CLOSE_TIMEOUT"):
    # after the applications are loaded, which it needs
    from django_cocobase_realtime.consumers import closing

    closing.CLOSE_TIMEOUT = float(seconds)

"""Routes of the HTTP endpoints.

Include them with ``path("realtime/", include("django_cocobase_realtime.urls"))``.
"""

from django.urls import path, re_path

from .views.health import health, ready
from .views.metrics import metrics
from .views.publish import publish
from .views.rooms import rooms
from .views.upgrade import upgrade_required

app_name = "realtime"
urlpatterns = [
    path("health", health, name="health"),
    path("ready", ready, name="ready"),
    path("metrics", metrics, name="metrics"),
    path("rooms", rooms, name="rooms"),
    path("publish", publish, name="publish"),
    # the paths of WebSockets, see `routing`
    path("", upgrade_required),
    re_path(r"^(?:broadcast|(?:collections|rooms)/.+?)/?$", upgrade_required),
]

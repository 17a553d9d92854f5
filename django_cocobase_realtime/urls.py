"""Routes of the HTTP endpoints.

Include them with ``path("realtime/", include("django_cocobase_realtime.urls"))``.
"""

from django.urls import path

from .views.health import health, ready
from .views.publish import publish
from .views.rooms import rooms

app_name = "realtime"
urlpatterns = [
    path("health", health, name="health"),
    path("ready", ready, name="ready"),
    path("rooms", rooms, name="rooms"),
    path("publish", publish, name="publish"),
]

"""``path("realtime/", include("django_cocobase_realtime.urls"))``."""

from django.urls import path

from . import views

app_name = "realtime"
urlpatterns = [
    path("health", views.health, name="health"),
    path("ready", views.ready, name="ready"),
    path("rooms", views.rooms, name="rooms"),
    path("publish", views.publish, name="publish"),
]

from django.contrib import admin
from django.templatetags.static import static
from django.urls import include, path
from django.views.generic import RedirectView

from demo_project.board import pages, views

urlpatterns = [
    path("", pages.board, name="board"),
    path("chat/", pages.chat, name="chat"),
    path("traffic/", pages.traffic, name="traffic"),
    path("plug/", pages.outage, name="outage"),
    path("identities/", pages.identities, name="identities"),
    path("token/<slug:who>", pages.token, name="token"),
    path("api/tasks", views.add_task),
    path("api/tasks/<int:pk>/move", views.move_task),
    path("api/tasks/<int:pk>/delete", views.delete_task),
    path("api/posts", views.add_post),
    path("api/posts/<int:pk>/toggle", views.toggle_post),
    path("api/parcels", views.add_parcel),
    path("api/parcels/<int:pk>/hand-over", views.hand_over_parcel),
    path("api/parcels/<int:pk>/delete", views.delete_parcel),
    path("api/traffic", views.set_traffic),
    path("api/clock", views.clock),
    path("api/plug", views.run_outage),
    path("api/plug/state", views.outage_state),
    path("favicon.ico", RedirectView.as_view(url=static("board/icon.svg"))),
    path("admin/", admin.site.urls),
    path("realtime/", include("django_cocobase_realtime.urls")),
]

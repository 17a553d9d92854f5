from django.contrib import admin
from django.templatetags.static import static
from django.urls import include, path
from django.views.generic import RedirectView

from demo_project.board import pages, views

urlpatterns = [
    path("", pages.board, name="board"),
    path("chat/", pages.chat, name="chat"),
    path("reconnect/", pages.reconnect, name="reconnect"),
    path("load/", pages.load, name="load"),
    path("permissions/", pages.permissions, name="permissions"),
    path("files/", pages.files, name="files"),
    path("files/<path:path>", pages.file, name="file"),
    path("token/<slug:who>", pages.token, name="token"),
    path("api/tasks", views.add_task),
    path("api/tasks/<int:pk>/move", views.move_task),
    path("api/tasks/<int:pk>/priority", views.set_priority),
    path("api/tasks/<int:pk>/delete", views.delete_task),
    path("api/posts", views.add_post),
    path("api/posts/<int:pk>/toggle", views.toggle_post),
    path("api/parcels", views.add_parcel),
    path("api/parcels/<int:pk>/hand-over", views.hand_over_parcel),
    path("api/parcels/<int:pk>/delete", views.delete_parcel),
    path("api/teams/<int:pk>/membership", views.set_membership),
    path("api/auto-moves", views.start_auto_moves),
    path("api/rename", views.rename_user),
    path("api/load", views.set_load),
    path("api/clock", views.clock),
    path("api/reconnect", views.start_reconnect),
    path("api/reconnect/state", views.reconnect_state),
    path("favicon.ico", RedirectView.as_view(url=static("board/icon.svg"))),
    path("admin/", admin.site.urls),
    path("realtime/", include("django_cocobase_realtime.urls")),
]

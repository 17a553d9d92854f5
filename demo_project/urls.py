from django.contrib import admin
from django.urls import include, path

from demo_project.board import views

urlpatterns = [
    path("", views.index, name="index"),
    path("tasks", views.add_task, name="add_task"),
    path("tasks/<int:pk>/move", views.move_task, name="move_task"),
    path("tasks/<int:pk>/delete", views.delete_task, name="delete_task"),
    path("posts", views.add_post, name="add_post"),
    path("posts/<int:pk>/toggle", views.toggle_post, name="toggle_post"),
    path("admin/", admin.site.urls),
    path("realtime/", include("django_cocobase_realtime.urls")),
]

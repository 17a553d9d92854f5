from django.contrib import admin

from .models import Post, Task


@admin.register(Task)
class TaskAdmin(admin.ModelAdmin):
    list_display = ("title", "column", "assignee", "moved_at")
    list_editable = ("column", "assignee")


@admin.register(Post)
class PostAdmin(admin.ModelAdmin):
    list_display = ("title", "status", "created_at")
    list_editable = ("status",)

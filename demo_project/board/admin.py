from django.contrib import admin

from .models import Membership, Parcel, Post, Task, Team

admin.site.site_header = admin.site.site_title = "django-cocobase-realtime demo"


@admin.register(Task)
class TaskAdmin(admin.ModelAdmin):
    list_display = ("title", "column", "priority", "assignee", "moved_at")
    list_editable = ("column", "priority", "assignee")
    list_filter = ("column", "priority")


@admin.register(Post)
class PostAdmin(admin.ModelAdmin):
    list_display = ("title", "status", "created_at")
    list_editable = ("status",)


class MembershipInline(admin.TabularInline):
    model = Membership
    extra = 1


@admin.register(Team)
class TeamAdmin(admin.ModelAdmin):
    inlines = (MembershipInline,)


@admin.register(Parcel)
class ParcelAdmin(admin.ModelAdmin):
    list_display = ("title", "team", "owner")
    list_editable = ("team", "owner")

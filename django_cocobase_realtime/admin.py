"""The admin of API keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest

from .models import ApiKey

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[ApiKey]
else:  # generic for type checkers only
    ModelAdmin = admin.ModelAdmin


@admin.register(ApiKey)
class ApiKeyAdmin(ModelAdmin):
    """The admin of API keys. The text of a key is shown once, when it is created."""

    list_display = ("name", "project", "prefix", "can_publish", "user", "state", "last_used_at")
    list_filter = ("project", "can_publish")
    search_fields = ("name", "prefix", "project")
    raw_id_fields = ("user",)
    readonly_fields = ("prefix", "created_at", "last_used_at", "revoked_at")
    list_select_related = ("user",)
    actions = ("revoke",)

    @admin.display(description="state")
    def state(self, key: ApiKey) -> str:
        """Return "live", "expired" or "revoked"."""
        return key.state

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        """Create the key, and show its text in a message."""
        if change:
            super().save_model(request, obj, form, change)
            return
        key, text = ApiKey.objects.create_key(
            obj.name,
            project=obj.project,
            can_publish=obj.can_publish,
            user=obj.user,
            expires_at=obj.expires_at,
        )
        obj.__dict__.update(key.__dict__)
        messages.warning(request, f"Copy the key now, it is not shown again: {text}")

    @admin.action(description="Revoke selected API keys", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        """Revoke the selected keys, for staff who may change them.

        The connections of the keys are closed within seconds.
        """
        keys = list(queryset)
        if not all(self.has_change_permission(request, key) for key in keys):
            raise PermissionDenied
        for key in keys:
            key.revoke()
        messages.success(request, "The keys were revoked.")

"""The admin of API keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest

from ..declarations.scopes import unknown_collections, unmatched_rooms
from ..models import ApiKey

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[ApiKey]
    ModelForm = forms.ModelForm[ApiKey]
else:  # generic for type checkers only
    ModelAdmin = admin.ModelAdmin
    ModelForm = forms.ModelForm


def _lines(text: Any) -> list[str]:
    """Return the lines of a text that are not empty, without spaces around them."""
    lines = (line.strip() for line in str(text or "").splitlines())
    return [line for line in lines if line]


class NamesField(forms.CharField):
    """A list of names, one per line."""

    widget = forms.Textarea(attrs={"rows": 3, "cols": 40})

    def to_python(self, value: Any) -> Any:
        """Return the list of names; None if there are none."""
        return _lines(value) or None

    def prepare_value(self, value: Any) -> Any:
        """Return a list as lines of text."""
        return "\n".join(value) if isinstance(value, list | tuple) else value

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Return whether the names in a form differ from the initial ones."""
        return bool(self.to_python(self.prepare_value(initial)) != self.to_python(data))


class ApiKeyForm(ModelForm):
    """The form of an API key, with its scope as lines of text."""

    collections = NamesField(
        required=False, help_text="Names of collections, one per line; empty for all."
    )
    no_collections = forms.BooleanField(required=False, help_text="The key may use none.")
    rooms = NamesField(
        required=False, help_text='Patterns of room names, such as "lobby-*"; empty for all.'
    )
    no_rooms = forms.BooleanField(required=False, help_text="The key may use none.")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        scope = self.instance.scope  # also if the stored values are damaged
        for name, names in (
            ("collections", sorted(scope.collections or ())),
            ("rooms", scope.rooms),
        ):
            self.initial[name] = list(names or ())
            # such as those that consist of spaces
            has_none = not _lines("\n".join(names or ()))
            self.initial[f"no_{name}"] = has_none and getattr(scope, name) is not None

    def clean(self) -> dict[str, Any] | None:
        """Check the scope, and set lists that are empty but restrict the key."""
        data = super().clean() or self.cleaned_data
        unknown = unknown_collections(data.get("collections") or ())
        # those that the key has already may have been removed from the project
        known = _lines("\n".join(self.initial["collections"]))
        unknown = [name for name in unknown if name not in known]
        if unknown:
            self.add_error("collections", f"There are no collections {unknown}.")
        for name in ("collections", "rooms"):
            if data.get(f"no_{name}"):
                if data.get(name):
                    self.add_error(f"no_{name}", ValidationError(f"Remove the {name}, or this."))
                data[name] = []
            if name in data and not {name, f"no_{name}"}.intersection(self.changed_data):
                # text cannot represent all that may be stored
                data[name] = getattr(self.instance, name)
        return data


@admin.register(ApiKey)
class ApiKeyAdmin(ModelAdmin):
    """The admin of API keys. The text of a key is shown once, when it is created."""

    list_display = (
        "name",
        "project",
        "prefix",
        "can_publish",
        "scope",
        "user",
        "state",
        "last_used_at",
    )
    list_filter = ("project", "can_publish", "read_only")
    form = ApiKeyForm
    fields = (
        *("name", "project", "user", "expires_at", "can_publish", "read_only"),
        *("collections", "no_collections", "rooms", "no_rooms"),
        *("prefix", "created_at", "last_used_at", "revoked_at"),
    )
    search_fields = ("name", "prefix", "project")
    raw_id_fields = ("user",)
    readonly_fields = ("prefix", "created_at", "last_used_at", "revoked_at")
    list_select_related = ("user",)
    actions = ("revoke",)

    @admin.display(description="state")
    def state(self, key: ApiKey) -> str:
        """Return "live", "expired" or "revoked"."""
        return key.state

    @admin.display(description="scope")
    def scope(self, key: ApiKey) -> str:
        """Describe what the key may be used for."""
        return str(key.scope)

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        """Create the key, and show its text in a message."""
        unmatched = unmatched_rooms(obj.rooms or ())
        if unmatched:
            message = f"No declared room has a name that {unmatched} match."
            messages.warning(request, message)
        if change:
            super().save_model(request, obj, form, change)
            return
        key, text = ApiKey.objects.create_key(
            obj.name,
            project=obj.project,
            can_publish=obj.can_publish,
            user=obj.user,
            expires_at=obj.expires_at,
            collections=obj.collections,
            rooms=obj.rooms,
            read_only=obj.read_only,
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

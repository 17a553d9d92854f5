"""The admin's page that explains why a client gets a document, or why not."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.http import HttpRequest

from ..declarations.registry import UnknownCollection, registry
from ..identity import Identity
from ..inspection.credentials import api_key_identity, user_identity, visitor_identity
from ..inspection.explain import Explanation, Request, explain
from ..inspection.findings import Finding


class ExplainForm(forms.Form):
    """The question: which client, and which document or event of a collection."""

    client = forms.ChoiceField(
        choices=[("user", "User"), ("key", "API key"), ("visitor", "Anonymous visitor")]
    )
    name = forms.CharField(
        required=False, label="User or key", help_text="Username, user id, or prefix of the key."
    )
    collection = forms.CharField()
    document = forms.CharField(required=False, help_text="Id of the document.")
    event = forms.CharField(
        required=False,
        help_text='Number or cursor of a logged event, or "last"; empty for the row as it is now.',
    )
    filters = forms.JSONField(
        required=False,
        label="Filter",
        help_text='Filter of the client as JSON, such as {"status": "open"}.',
        widget=forms.TextInput,
    )
    transitions = forms.BooleanField(required=False, help_text='With "entered" and "left".')

    def clean_filters(self) -> dict[str, Any]:
        """Return the filter. Raises ``ValidationError`` if it is not an object."""
        filters = self.cleaned_data["filters"] or {}
        if not isinstance(filters, dict):
            raise ValidationError("The filter must be a JSON object.")
        return filters

    def clean(self) -> dict[str, Any]:
        """Check that a client, and a document or event, are named."""
        data = super().clean() or self.cleaned_data
        if data.get("client") != "visitor" and not data.get("name"):
            self.add_error("name", "Name a user or a key.")
        if not data.get("document") and data.get("event") in ("", "last"):
            self.add_error("document", "Name a document, or an event by its number or cursor.")
        return data


def may_see_rows(request: HttpRequest, name: str) -> bool:
    """Return whether the user may see rows of a collection: as in the admin of its model.

    A name that no collection has is allowed, since there are no rows.
    """
    user: Any = request.user
    try:
        meta = registry.get(name).model_class._meta
    except UnknownCollection:
        return True
    return any(
        user.has_perm(f"{meta.app_label}.{action}_{meta.model_name}")
        for action in ("view", "change")
    )


def explain_form(data: dict[str, Any]) -> Explanation:
    """Return the explanation for the values of a valid form."""
    identity, credential = _identity(data)
    credential = Finding(credential.passes, f"credential: {credential.text}")
    explanation = Explanation(None, ())
    if identity is not None:
        request = Request(data["collection"], data["filters"], transitions=data["transitions"])
        document, event = data["document"] or None, data["event"] or None
        explanation = explain(identity, request, document, event)
    return Explanation(explanation.event, (credential, *explanation.findings))


def _identity(data: dict[str, Any]) -> tuple[Identity | None, Finding]:
    match data["client"]:
        case "user":
            return user_identity(data["name"])
        case "key":
            return api_key_identity(data["name"])
    return visitor_identity()

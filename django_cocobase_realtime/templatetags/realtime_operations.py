"""The template tags of the admin's pages about connections."""

from __future__ import annotations

import json
from typing import Any

from django import template
from django.utils.safestring import SafeString

from .realtime import module_script

register = template.Library()

# static file of the script that refreshes the pages
SCRIPT = "django_cocobase_realtime/operations.js"


@register.simple_tag(takes_context=True)
def operations_script(context: dict[str, Any]) -> SafeString:
    """Return a ``<script type="module">`` element that loads the script of the pages."""
    return module_script(context, SCRIPT, {})


@register.filter
def realtime_json(value: Any) -> str:
    """Return a filter of a client as JSON, which the template escapes."""
    return json.dumps(value, ensure_ascii=False)

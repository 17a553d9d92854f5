"""``{% load realtime %}{% realtime %}``: the JavaScript client on a page that Django renders."""

from __future__ import annotations

from typing import Any

from django import template
from django.templatetags.static import static
from django.urls import get_script_prefix
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

register = template.Library()

SCRIPT = "django_cocobase_realtime/realtime.js"


@register.simple_tag(takes_context=True)
def realtime(
    context: dict[str, Any],
    url: str = "realtime",
    *,
    token: str | None = None,
    nonce: str | None = None,
) -> SafeString:
    """One ``<script type="module">``, whose attributes say where to connect. No inline script.

    ``url`` is the prefix given to ``realtime_application``, below the site's script prefix; or an
    absolute path or URL. Without a ``token`` the visitor's session counts. ``nonce`` is by default
    that of Django's own CSP (``csp_nonce`` in the context), or django-csp's of the request.
    """
    if "://" not in url and not url.startswith("/"):
        url = get_script_prefix() + url
    attributes = {"src": static(SCRIPT), "data-realtime-url": url}
    if token:
        attributes["data-realtime-token"] = token
    found: Any = nonce
    if found is None:
        found = context.get("csp_nonce")
    if found is None:
        found = getattr(context.get("request"), "csp_nonce", None)
    # a lazy nonce is false until it is asked for its text
    if found is not None and str(found):
        attributes["nonce"] = str(found)
    pairs = format_html_join("", ' {}="{}"', attributes.items())
    return format_html('<script type="module"{}></script>', pairs)

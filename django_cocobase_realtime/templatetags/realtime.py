"""The template tag ``{% realtime %}``, which loads the JavaScript client."""

from __future__ import annotations

from typing import Any

from django import template
from django.templatetags.static import static
from django.urls import get_script_prefix
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

register = template.Library()

# static file of the JavaScript client
SCRIPT = "django_cocobase_realtime/realtime.js"


@register.simple_tag(takes_context=True)
def realtime(
    context: dict[str, Any],
    url: str = "realtime",
    *,
    token: str | None = None,
    nonce: str | None = None,
) -> SafeString:
    """Return a ``<script type="module">`` element that loads the JavaScript client.

    Its attributes pass the URL and the token to the client, so that no inline script is needed.
    ``url`` is the prefix given to ``realtime_application``, relative to the site's script prefix,
    or an absolute path or URL. Without a ``token``, the visitor's session is used. ``nonce``
    defaults to that of Django's CSP (``csp_nonce`` in the context) or of django-csp (on the
    request).
    """
    if "://" not in url and not url.startswith("/"):
        # with a slash at the end, Django does not redirect handshakes that a proxy has broken, and
        # answers them with a text
        url = f"{get_script_prefix()}{url.rstrip('/')}/"
    attributes = {"data-realtime-url": url}
    if token:
        attributes["data-realtime-token"] = token
    return module_script(context, SCRIPT, attributes, nonce)


def module_script(
    context: dict[str, Any], file: str, attributes: dict[str, str], nonce: str | None = None
) -> SafeString:
    """Return an element that loads a static file as a module, with the nonce of the page's CSP."""
    attributes = {"src": static(file), **attributes}
    nonce_value: Any = nonce
    if nonce_value is None:
        nonce_value = context.get("csp_nonce")
    if nonce_value is None:
        nonce_value = getattr(context.get("request"), "csp_nonce", None)
    # django-csp's lazy nonce is false until it is converted to a string
    if nonce_value is not None and str(nonce_value):
        attributes["nonce"] = str(nonce_value)
    pairs = format_html_join("", ' {}="{}"', attributes.items())
    return format_html('<script type="module"{}></script>', pairs)

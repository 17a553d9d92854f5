"""The admin's pages that show connections, streams and rooms, and close connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import django
from django.contrib import admin, messages
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.views.decorators.cache import never_cache

from ..api import connections, disconnect
from ..declarations.operations import DISCONNECT_PERMISSION, OPERATIONS_ROOM, is_permitted
from ..inspection.records import ConnectionInfo
from ..inspection.rooms import rooms_info
from ..inspection.streams import streams
from ..models import Connection
from ..transport import missing_upgrade
from .explain import ExplainForm, explain_form, may_see_rows

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Connection]
else:  # generic for type checkers only
    ModelAdmin = admin.ModelAdmin

# rows of a page
PAGE_SIZE = 100
PAGES = (
    ("changelist", "Connections"),
    ("streams", "Streams"),
    ("rooms", "Rooms"),
    ("explain", "Explain"),
)


@admin.register(Connection)
class ConnectionAdmin(ModelAdmin):
    """The pages, for staff with the permission ``view_connections``."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: connections are closed on a page of their own."""
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the user may see the pages."""
        return is_permitted(request.user)

    def has_module_permission(self, request: HttpRequest) -> bool:
        """Return whether the index of the admin lists the pages."""
        return is_permitted(request.user)

    def has_disconnect_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may close connections."""
        return self.has_view_permission(request) and is_permitted(
            request.user, DISCONNECT_PERMISSION
        )

    def get_urls(self) -> list[URLPattern]:
        """Return the URLs of the pages."""
        views: list[tuple[str, Callable[..., HttpResponse], str]] = [
            ("", self.connections_view, "changelist"),
            ("streams/", self.streams_view, "streams"),
            ("rooms/", self.rooms_view, "rooms"),
            ("explain/", self.explain_view, "explain"),
            ("disconnect/", self.disconnect_view, "disconnect"),
        ]
        return [
            path(route, self.admin_site.admin_view(never_cache(view)), name=_name(name))
            for route, view, name in views
        ]

    def connections_view(self, request: HttpRequest) -> HttpResponse:
        """Show the connections of all server processes that match the search."""
        self._require_view_permission(request)
        query = request.GET.get("q", "").strip()
        rows = [row for row in connections() if _matches(row, query)]
        rows.reverse()  # the latest first
        context = {"query": query, "may_disconnect": self.has_disconnect_permission(request)}
        return self._render(request, "changelist", rows, context)

    def streams_view(self, request: HttpRequest) -> HttpResponse:
        """Show the streams of all databases, and how many processes follow them."""
        self._require_view_permission(request)
        return self._render(request, "streams", streams(), {})

    def rooms_view(self, request: HttpRequest) -> HttpResponse:
        """Show the rooms that connections have joined, and their members."""
        self._require_view_permission(request)
        rows = [room for room in rooms_info() if room.name != OPERATIONS_ROOM]
        return self._render(request, "rooms", rows, {})

    def explain_view(self, request: HttpRequest) -> HttpResponse:
        """Explain why a client gets a document, to users who may see its row in the admin."""
        self._require_view_permission(request)
        form = ExplainForm(request.POST if request.method == "POST" else None)
        explanation = None
        if form.is_valid():
            if not may_see_rows(request, form.cleaned_data["collection"]):
                raise PermissionDenied
            explanation = explain_form(form.cleaned_data)
        context = {**self.context(request, "explain"), "form": form, "explanation": explanation}
        return TemplateResponse(request, _template("explain"), context)

    def disconnect_view(self, request: HttpRequest) -> HttpResponse:
        """Close a connection, or all of a user, when the user has confirmed it."""
        if not self.has_disconnect_permission(request):
            raise PermissionDenied
        one, user = request.POST.get("connection", ""), request.POST.get("user", "")
        project = request.POST.get("project", "")
        if request.method != "POST" or bool(one) == bool(user) or (user and not project):
            return HttpResponseRedirect(self.url("changelist"))
        rows = [
            row
            for row in connections()
            if row.id == one or (user and (row.user_id, row.project) == (user, project))
        ]
        if not rows:
            messages.warning(request, "There is no such connection any more.")
            return self._redirect(request)
        if "confirmed" not in request.POST:
            context = {
                **self.context(request, "disconnect"),
                "rows": rows,
                "fields": {"connection": one, "user": user, "project": project}
                | {"q": request.POST.get("q", "")},
            }
            return TemplateResponse(request, _template("disconnect"), context)
        if one:
            disconnect(connection=one)
        else:
            disconnect(user=user, project=project)
        _log(request, rows)
        noun = "connection is" if len(rows) == 1 else "connections are"
        messages.success(request, f"{len(rows)} {noun} being closed.")
        return self._redirect(request)

    def _require_view_permission(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied

    def context(self, request: HttpRequest, page: str) -> dict[str, Any]:
        """Return what the templates of all pages need."""
        site = self.admin_site
        tabs = [(self.url(name), title, name == page) for name, title in PAGES]
        # in a project with several prefixes, any of them leads to the same consumer
        prefixes = sorted(missing_upgrade.prefixes - {"realtime"}) or ["realtime"]
        return {
            **site.each_context(request),
            "opts": self.opts,
            "tabs": tabs,
            "title": dict(PAGES).get(page, "Close connections"),
            "prefix": prefixes[0],
            "has_breadcrumb_list": django.VERSION >= (6, 1),
            "disconnect_url": self.url("disconnect"),
        }

    def url(self, page: str) -> str:
        """Return the URL of a page in this admin site."""
        return reverse(f"{self.admin_site.name}:{_name(page)}")

    def _render(
        self, request: HttpRequest, page: str, rows: list[Any], context: dict[str, Any]
    ) -> HttpResponse:
        paginator = Paginator(rows, PAGE_SIZE)
        context = {
            **self.context(request, page),
            "page": paginator.get_page(request.GET.get("p")),
            **context,
        }
        return TemplateResponse(request, _template(page), context)

    def _redirect(self, request: HttpRequest) -> HttpResponse:
        query = request.POST.get("q", "")
        url = self.url("changelist")
        return HttpResponseRedirect(f"{url}?{urlencode({'q': query})}" if query else url)


def _name(page: str) -> str:
    """Return the name of the URL of a page."""
    return f"{Connection._meta.app_label}_{Connection._meta.model_name}_{page}"


def _template(page: str) -> str:
    return f"admin/cocobase_realtime/connection/{page}.html"


def _log(request: HttpRequest, rows: list[ConnectionInfo]) -> None:
    """Add the closed connections to the log of the admin."""
    user: Any = request.user.pk
    content_type = ContentType.objects.get_for_model(Connection)
    LogEntry.objects.bulk_create(
        LogEntry(
            user_id=user,
            content_type=content_type,
            object_id=row.id,
            object_repr=f"{row.user_name or row.credential}, {row.address}"[:200],
            action_flag=DELETION,
            change_message="Closed.",
        )
        for row in rows
    )


def _matches(connection: ConnectionInfo, query: str) -> bool:
    """Return whether each word of a search is in the user, the address or another name."""
    names = (
        connection.user_name,
        connection.user_id or "",
        connection.address,
        connection.credential,
        connection.project,
        connection.id,
    )
    text = "\n".join(names).lower()
    return all(word in text for word in query.lower().split())

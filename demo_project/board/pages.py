"""The views that render the demo's pages."""

from functools import wraps

from django.conf import settings
from django.contrib.auth import get_user_model
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_safe

from . import sources, sql_commands, users
from .auto_moves import TITLE as AUTO_CARD
from .models import Task, Team
from .reconnect import OUTAGE_SECONDS
from .views import OUTAGE_AT, RATES, RECONNECT_CHANGES, RECONNECT_RATE

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

SHELL_COMMAND = ".venv/bin/python manage.py shell -c \"Task.objects.create(title='From a shell')\""


def page(view):
    """Render a page for a logged-in visitor, with a strict Content Security Policy."""

    @require_safe
    @never_cache
    @ensure_csrf_cookie
    @wraps(view)
    def wrapper(request, **values):
        users.ensure_logged_in(request)
        template, context = view(request, **values)
        context = {
            "me": request.user.get_username(),
            "debug": settings.DEBUG,
            "excerpts": sources.EXCERPTS.get(template),
            **context,
        }
        response = render(request, f"board/{template}.html", context)
        response["Content-Security-Policy"] = POLICY
        return response

    return wrapper


@page
def board(request):
    second = users.get_second_guest(request).get_username()
    return "board", {
        "columns": Task.COLUMNS,
        "second": second,
        "auto_card": AUTO_CARD,
        "names": users.NAMES,
        "shell_command": SHELL_COMMAND,
        "sql_card": sql_commands.CARD,
        "sql_commands": sql_commands.list_commands(),
    }


@page
def chat(request):
    """With ``?as=guest``, the page is that of the second visitor, identified by a token."""
    if request.GET.get("as") != "guest":
        return "chat", {}
    return "chat", {"me": users.get_second_guest(request).get_username(), "token": "guest"}


@page
def reconnect(request):
    return "reconnect", {
        "changes": RECONNECT_CHANGES,
        "before": OUTAGE_AT,
        "seconds": round(RECONNECT_CHANGES / RECONNECT_RATE),
        "outage": round(OUTAGE_SECONDS),
    }


@page
def load(request):
    return "load", {"rates": RATES}


@page
def permissions(request):
    couriers = get_user_model().objects.filter(username__in=users.COURIERS).order_by("username")
    return "permissions", {
        "couriers": couriers,
        "dispatcher": users.DISPATCHER,
        "teams": Team.objects.all(),
    }


@page
def files(request):
    groups = sources.group_files()
    code = groups.popitem()
    return "files", {"columns": [groups.items(), [code]]}


@page
def file(request, path):
    """Show a file of the repository as text. Only those in `sources.list_files` are shown."""
    if path not in sources.list_files():
        raise Http404
    return "file", {"path": path, "text": sources.render(path)}


@require_safe
@never_cache
def token(request, who):
    """Give anyone a token of one of the demo's named users. For this demo only."""
    if who == "guest" and request.user.is_authenticated:
        user = users.get_second_guest(request)
    elif who in (*users.COURIERS, users.DISPATCHER):
        user = get_object_or_404(get_user_model(), username=who)
    else:
        raise Http404
    return HttpResponse(users.create_token(user), content_type="text/plain")

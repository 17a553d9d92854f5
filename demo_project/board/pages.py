"""The views that render the demo's pages."""

from functools import wraps

from django.conf import settings
from django.contrib.auth import get_user_model
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_safe

from . import users
from .models import Task
from .outage import OUTAGE_SECONDS
from .views import OUTAGE_CHANGES, RATES

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def page(view):
    """Render a page for a logged-in visitor, with a strict Content Security Policy."""

    @require_safe
    @never_cache
    @ensure_csrf_cookie
    @wraps(view)
    def wrapper(request):
        users.ensure_logged_in(request)
        template, context = view(request)
        context = {"me": request.user.get_username(), "debug": settings.DEBUG, **context}
        response = render(request, f"board/{template}.html", context)
        response["Content-Security-Policy"] = POLICY
        return response

    return wrapper


@page
def board(request):
    return "board", {"columns": Task.COLUMNS}


@page
def chat(request):
    """With ``?as=guest``, the page is that of a second guest, identified by a token."""
    if request.GET.get("as") != "guest":
        return "chat", {}
    return "chat", {"me": users.get_second_guest(request).get_username(), "token": "guest"}


@page
def traffic(request):
    return "traffic", {"rates": RATES}


@page
def outage(request):
    return "outage", {"changes": OUTAGE_CHANGES, "outage": round(OUTAGE_SECONDS)}


@page
def identities(request):
    couriers = get_user_model().objects.filter(username__in=users.COURIERS).order_by("username")
    return "identities", {"couriers": couriers, "dispatcher": users.DISPATCHER}


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

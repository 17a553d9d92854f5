"""The pages."""

from functools import wraps

from django.conf import settings
from django.contrib.auth import get_user_model
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_safe

from . import people
from .models import Task
from .plug import OUTAGE
from .views import PLUG_CHANGES, RATES

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def page(view):
    """For visitors with a name, under a strict Content Security Policy."""

    @require_safe
    @never_cache
    @ensure_csrf_cookie
    @wraps(view)
    def shown(request):
        people.welcome(request)
        template, context = view(request)
        context = {"me": request.user.get_username(), "debug": settings.DEBUG, **context}
        answer = render(request, f"board/{template}.html", context)
        answer["Content-Security-Policy"] = POLICY
        return answer

    return shown


@page
def board(request):
    return "board", {"columns": Task.COLUMNS}


@page
def chat(request):
    """``?as=guest``: somebody else, who has a token."""
    if request.GET.get("as") != "guest":
        return "chat", {}
    return "chat", {"me": people.second_guest(request).get_username(), "token": "guest"}


@page
def traffic(request):
    return "traffic", {"rates": RATES}


@page
def plug(request):
    return "plug", {"changes": PLUG_CHANGES, "outage": round(OUTAGE)}


@page
def identities(request):
    couriers = get_user_model().objects.filter(username__in=people.COURIERS).order_by("username")
    return "identities", {"couriers": couriers, "dispatcher": people.DISPATCHER}


@require_safe
@never_cache
def token(request, who):
    """For this demo alone: whoever asks may be one of these."""
    if who == "guest" and request.user.is_authenticated:
        user = people.second_guest(request)
    elif who in (*people.COURIERS, people.DISPATCHER):
        user = get_object_or_404(get_user_model(), username=who)
    else:
        raise Http404
    return HttpResponse(people.token_for(user), content_type="text/plain")

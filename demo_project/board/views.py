"""The views behind the pages' buttons. They are ordinary Django views without realtime code."""

import json
import time
from functools import partial, wraps

from django.contrib.auth import get_user_model
from django.http import JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from . import change_generator, users
from .auto_moves import auto_moves
from .models import Membership, Parcel, Post, Task, Team
from .reconnect import start_outage

RATES = (1, 10, 50)  # changes per second
LOAD_SECONDS, SHORT_LOAD_SECONDS = 60, 5
RECONNECT_RATE, RECONNECT_CHANGES = 16, 96  # changes per second, changes in all
OUTAGE_AT = 16  # number of changes after which the outage starts


def action(view):
    """Require a POST of a JSON object by a logged-in user; pass the object as ``body``."""

    @require_POST
    @wraps(view)
    def wrapper(request, **values):
        if not request.user.is_authenticated:
            return JsonResponse({"error": "Load the page again."}, status=403)
        try:
            body = json.loads(request.body or "{}")
        except ValueError:
            body = None
        if not isinstance(body, dict):
            return JsonResponse({"error": "The body must be a JSON object."}, status=400)
        return view(request, body=body, **values)

    return wrapper


def error_response(error, status=400):
    return JsonResponse({"error": error}, status=status)


def title_of(body):
    return str(body.get("title", "")).strip()[:120]


def actor(request, body):
    """Return the visitor who acts: the first one, or the page's second one."""
    return users.get_second_guest(request) if body.get("as") == "guest" else request.user


@action
def add_task(request, body):
    title = title_of(body)
    if not title:
        return error_response("Give the card a title.")
    task = Task.objects.create(title=title, assignee=actor(request, body))
    return JsonResponse({"id": str(task.pk)}, status=201)


@action
def move_task(request, body, pk):
    column = body.get("column")
    if column not in dict(Task.COLUMNS):
        return error_response("No such column.")
    task = get_object_or_404(Task, pk=pk)
    task.column = column
    task.assignee = actor(request, body)
    task.save()
    return JsonResponse({})


@action
def set_priority(request, body, pk):
    priority = body.get("priority")
    if priority not in [value for value, _ in Task.PRIORITIES]:
        return error_response("No such priority.")
    task = get_object_or_404(Task, pk=pk)
    task.priority = priority
    task.save(update_fields=["priority"])  # the card has not been moved
    return JsonResponse({})


@action
def delete_task(request, body, pk):
    get_object_or_404(Task, pk=pk).delete()
    return JsonResponse({})


@action
def rename_user(request, body):
    """Rename a user whose name cards show. No card is written."""
    return JsonResponse({"name": users.rename()})


@action
def start_auto_moves(request, body):
    """Make the server move a card three times."""
    auto_moves.start()
    return JsonResponse({})


@action
def add_post(request, body):
    title = title_of(body)
    if not title:
        return error_response("Give the post a title.")
    post = Post.objects.create(title=title, status="published")
    return JsonResponse({"id": str(post.pk)}, status=201)


@action
def toggle_post(request, body, pk):
    post = get_object_or_404(Post, pk=pk)
    post.status = "draft" if post.status == "published" else "published"
    post.save()
    return JsonResponse({})


@action
def add_parcel(request, body):
    title = title_of(body)
    if not title:
        return error_response("Give the parcel a title.")
    team = get_object_or_404(Team, name=body.get("team"))
    parcel = Parcel.objects.create(title=title, team=team)
    return JsonResponse({"id": str(parcel.pk)}, status=201)


@action
def hand_over_parcel(request, body, pk):
    """Assign the parcel to the courier named ``owner``; null removes the owner."""
    owner = body.get("owner")
    if owner is not None and owner not in users.COURIERS:
        return error_response("No such courier.")
    parcel = get_object_or_404(Parcel, pk=pk)
    parcel.owner = owner and get_user_model().objects.get(username=owner)
    parcel.save()
    return JsonResponse({})


@action
def set_membership(request, body, pk):
    """Add a courier to a team, or remove the courier from it."""
    courier = body.get("courier")
    if courier not in users.COURIERS:
        return error_response("No such courier.")
    team = get_object_or_404(Team, pk=pk)
    user = get_user_model().objects.get(username=courier)
    if body.get("joins"):
        Membership.objects.get_or_create(team=team, user=user)
    else:
        Membership.objects.filter(team=team, user=user).delete()
    return JsonResponse({})


@action
def delete_parcel(request, body, pk):
    get_object_or_404(Parcel, pk=pk).delete()
    return JsonResponse({})


@action
def set_load(request, body):
    """Make ``rate`` changes per second for a minute, or for a short time; 0 stops them."""
    rate = body.get("rate")
    if rate == 0:
        change_generator.load.stop()
    elif rate in RATES:
        seconds = SHORT_LOAD_SECONDS if body.get("short") else LOAD_SECONDS
        change_generator.load.start(rate, rate * seconds)
    else:
        return error_response("No such rate.")
    return JsonResponse({"rate": change_generator.load.rate})


@require_safe
@never_cache
def clock(request):
    """Return the server's time in milliseconds, so that a page can correct for its own clock."""
    return JsonResponse({"now": time.time() * 1000, "rate": change_generator.load.rate})


@action
def start_reconnect(request, body):
    """Start making changes, and close this visitor's connections while they are made."""
    if change_generator.reconnect.is_running:
        return error_response("Another visitor's run is not finished yet.", status=409)
    start = partial(start_outage, request.session.session_key)
    change_generator.reconnect.start(RECONNECT_RATE, RECONNECT_CHANGES, at={OUTAGE_AT: start})
    return JsonResponse(_reconnect_run())


@require_safe
@never_cache
def reconnect_state(request):
    """Return the progress of the changes over HTTP, which the outage does not affect."""
    return JsonResponse(_reconnect_run())


def _reconnect_run():
    run = change_generator.reconnect
    return {"first": run.first, "last": run.last, "made": run.made}

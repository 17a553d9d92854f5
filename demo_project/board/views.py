"""What the pages' buttons do: ordinary Django views, nothing here knows of sockets."""

import json
import time
from functools import partial, wraps

from django.contrib.auth import get_user_model
from django.http import JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from . import people, plug
from .models import Parcel, Post, Task
from .ticking import plug_run, traffic

RATES = (1, 10, 50)  # changes a second
TRAFFIC_SECONDS = 60
PLUG_RATE, PLUG_CHANGES, PLUG_AT = 16, 96, 16


def action(view):
    """A POST, by somebody with a session, of a JSON object that the view gets as ``body``."""

    @require_POST
    @wraps(view)
    def acted(request, **values):
        if not request.user.is_authenticated:
            return JsonResponse({"error": "Load the page again."}, status=403)
        try:
            body = json.loads(request.body or "{}")
        except ValueError:
            body = None
        if not isinstance(body, dict):
            return JsonResponse({"error": "The body must be a JSON object."}, status=400)
        return view(request, body=body, **values)

    return acted


def wrong(error, status=400):
    return JsonResponse({"error": error}, status=status)


def title_of(body):
    return str(body.get("title", "")).strip()[:120]


@action
def add_task(request, body):
    title = title_of(body)
    if not title:
        return wrong("Give the card a title.")
    task = Task.objects.create(title=title, assignee=request.user.get_username())
    return JsonResponse({"id": str(task.pk)}, status=201)


@action
def move_task(request, body, pk):
    column = body.get("column")
    if column not in dict(Task.COLUMNS):
        return wrong("No such column.")
    task = get_object_or_404(Task, pk=pk)
    task.column = column
    task.assignee = request.user.get_username()
    task.save()
    return JsonResponse({})


@action
def delete_task(request, body, pk):
    get_object_or_404(Task, pk=pk).delete()
    return JsonResponse({})


@action
def add_post(request, body):
    title = title_of(body)
    if not title:
        return wrong("Give the notice a title.")
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
        return wrong("Give the parcel a title.")
    parcel = Parcel.objects.create(title=title)
    return JsonResponse({"id": str(parcel.pk)}, status=201)


@action
def hand_over_parcel(request, body, pk):
    """To the courier named ``owner``, or with null to nobody."""
    owner = body.get("owner")
    if owner is not None and owner not in people.COURIERS:
        return wrong("No such courier.")
    parcel = get_object_or_404(Parcel, pk=pk)
    parcel.owner = owner and get_user_model().objects.get(username=owner)
    parcel.save()
    return JsonResponse({})


@action
def delete_parcel(request, body, pk):
    get_object_or_404(Parcel, pk=pk).delete()
    return JsonResponse({})


@action
def set_traffic(request, body):
    """``rate``: changes a second for the next minute, or 0."""
    rate = body.get("rate")
    if rate == 0:
        traffic.stop()
    elif rate in RATES:
        traffic.start(rate, rate * TRAFFIC_SECONDS)
    else:
        return wrong("No such rate.")
    return JsonResponse({"rate": traffic.rate})


@require_safe
@never_cache
def clock(request):
    """The server's time in milliseconds, for latencies on a machine with another clock."""
    return JsonResponse({"now": time.time() * 1000, "rate": traffic.rate})


@action
def pull_plug(request, body):
    """Begin to make changes; amid them drop this visitor's sockets."""
    if plug_run.is_running:
        return wrong("Somebody's run is not over yet.", status=409)
    pull = partial(plug.pull, request.user.pk, request.session.session_key)
    plug_run.start(PLUG_RATE, PLUG_CHANGES, at={PLUG_AT: pull})
    return JsonResponse(_run())


@require_safe
@never_cache
def plug_state(request):
    """How far the changes are, by the way of HTTP, which the plug leaves alone."""
    return JsonResponse(_run())


def _run():
    return {"first": plug_run.first, "last": plug_run.last, "made": plug_run.made}

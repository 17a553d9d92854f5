"""Ordinary Django views: nothing here knows of sockets."""

import json
import secrets
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model, login
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_GET, require_POST

from .models import Post, Task

ANIMALS = ("Otter", "Heron", "Lynx", "Wren", "Badger", "Hare", "Newt", "Stork", "Mole", "Finch")


@require_GET
@ensure_csrf_cookie
def index(request: HttpRequest) -> HttpResponse:
    """The page. A newcomer becomes a guest with a name, logged in by a Django session."""
    if not request.user.is_authenticated:
        name = f"{secrets.choice(ANIMALS)} {secrets.randbelow(900) + 100}"
        guest = get_user_model().objects.create_user(username=name)
        login(request, guest, "django.contrib.auth.backends.ModelBackend")
    return render(request, "board/index.html", {"columns": Task.COLUMNS, "debug": settings.DEBUG})


def _task(task: Task) -> dict[str, Any]:
    fields = {"title": task.title, "column": task.column, "assignee": task.assignee}
    return {"id": str(task.pk), "data": fields}


def _body(request: HttpRequest) -> dict[str, Any]:
    try:
        body = json.loads(request.body)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _title(request: HttpRequest) -> str:
    return str(_body(request).get("title", "")).strip()[:120]


@require_POST
def add_task(request: HttpRequest) -> JsonResponse:
    title = _title(request)
    if not title:
        return JsonResponse({"error": "Give the card a title."}, status=400)
    task = Task.objects.create(title=title, assignee=request.user.get_username() or "Nobody")
    return JsonResponse(_task(task), status=201)


@require_POST
def move_task(request: HttpRequest, pk: int) -> JsonResponse:
    column = _body(request).get("column")
    if column not in dict(Task.COLUMNS):
        return JsonResponse({"error": "No such column."}, status=400)
    task = get_object_or_404(Task, pk=pk)
    task.column = column
    task.assignee = request.user.get_username() or task.assignee
    task.save()
    return JsonResponse(_task(task))


@require_POST
def delete_task(request: HttpRequest, pk: int) -> JsonResponse:
    get_object_or_404(Task, pk=pk).delete()
    return JsonResponse({})


@require_POST
def add_post(request: HttpRequest) -> JsonResponse:
    title = _title(request)
    if not title:
        return JsonResponse({"error": "Give the post a title."}, status=400)
    Post.objects.create(title=title, status="published")
    return JsonResponse({}, status=201)


@require_POST
def toggle_post(request: HttpRequest, pk: int) -> JsonResponse:
    post = get_object_or_404(Post, pk=pk)
    post.status = "draft" if post.status == "published" else "published"
    post.save()
    return JsonResponse({})

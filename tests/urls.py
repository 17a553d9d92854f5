"""What the servers of tests answer over HTTP: a view that saves inside the server's process."""

import json

from django.contrib import admin
from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt

from django_cocobase_realtime import broadcast
from tests.app.models import Message, Post


@csrf_exempt
def save(request: HttpRequest) -> JsonResponse:
    """POST a list of titles: posts, saved in one transaction."""
    with transaction.atomic():
        posts = [Post.objects.create(**fields) for fields in json.loads(request.body)]
    return JsonResponse({"ids": [post.pk for post in posts]})


@csrf_exempt
def message(request: HttpRequest) -> JsonResponse:
    """POST a text: a Message."""
    return JsonResponse({"id": Message.objects.create(text=request.body.decode()).pk})


@csrf_exempt
def say(request: HttpRequest) -> JsonResponse:
    """POST a text: broadcast to room "news"."""
    broadcast("news", {"text": request.body.decode()})
    return JsonResponse({})


urlpatterns = [
    path("admin/", admin.site.urls),
    path("realtime/", include("django_cocobase_realtime.urls")),
    path("save", save),
    path("message", message),
    path("say", say),
]

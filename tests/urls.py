"""What the servers of tests answer over HTTP: a view that saves inside the server's process."""

import json

from django.contrib import admin
from django.contrib.staticfiles.views import serve
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
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


PAGE_SCRIPT = """
document.body.dataset.script = typeof window.realtime;
const posts = window.realtime.live("posts", { order: "-id", filters: { status: "published" } });
posts.subscribe((documents) => {
  document.getElementById("posts").innerText = documents.map((each) => each.data.title).join(", ");
});
window.realtime.on("status", ({ status }) => { document.body.dataset.status = status; });
"""


def live(request: HttpRequest) -> HttpResponse:
    """A page with the client on it, and a policy that lets no inline script run."""
    answer = render(request, "app/live.html", {"csp_nonce": "n0nce"})
    answer["Content-Security-Policy"] = (
        "default-src 'none'; script-src 'nonce-n0nce'; connect-src 'self'; img-src data:"
    )
    return answer


def page_script(request: HttpRequest) -> HttpResponse:
    """The page's own script, as a file."""
    return HttpResponse(PAGE_SCRIPT, content_type="text/javascript")


urlpatterns = [
    path("admin/", admin.site.urls),
    path("realtime/", include("django_cocobase_realtime.urls")),
    path("save", save),
    path("message", message),
    path("say", say),
    path("live", live),
    path("live.js", page_script, name="page-script"),
    path("static/<path:path>", serve, {"insecure": True}),
]

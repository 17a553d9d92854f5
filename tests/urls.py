"""URLs of the test project. Some views write, so that a change comes from the server's process."""

import json
import time

from django.contrib import admin
from django.contrib.staticfiles.views import serve
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt

from django_cocobase_realtime import broadcast
from django_cocobase_realtime.hub.hub import Hub
from tests.app.models import Message, Post


@csrf_exempt
def create_posts(request: HttpRequest) -> JsonResponse:
    """Create posts from a JSON list of their fields, in one transaction."""
    with transaction.atomic():
        posts = [Post.objects.create(**fields) for fields in json.loads(request.body)]
    return JsonResponse({"ids": [post.pk for post in posts]})


@csrf_exempt
def create_post_slowly(request: HttpRequest) -> JsonResponse:
    """Wait for the seconds in the body, and create a post."""
    time.sleep(float(request.body))
    return JsonResponse({"id": Post.objects.create(title="slow").pk})


@csrf_exempt
def create_message(request: HttpRequest) -> JsonResponse:
    """Create a message with the text of the body."""
    return JsonResponse({"id": Message.objects.create(text=request.body.decode()).pk})


@csrf_exempt
def broadcast_news(request: HttpRequest) -> JsonResponse:
    """Broadcast the text of the body to room "news"."""
    broadcast("news", {"text": request.body.decode()})
    return JsonResponse({})


async def send_large_frame(request: HttpRequest) -> HttpResponse:
    """Send a frame that is larger than daphne accepts to all connections of this process."""
    for connection in Hub.current().connections.values():
        connection.writer.push('"' + "x" * 2 * 1024 * 1024 + '"')
    return JsonResponse({})


PAGE_SCRIPT = """
document.body.dataset.script = typeof window.realtime;
const posts = window.realtime.live("posts", { order: "-id", filters: { status: "published" } });
posts.subscribe((documents) => {
  document.getElementById("posts").innerText = documents.map((each) => each.data.title).join(", ");
});
window.realtime.on("status", ({ status }) => { document.body.dataset.status = status; });
"""


def live_page(request: HttpRequest) -> HttpResponse:
    """Render a page with the client and a policy that forbids inline scripts."""
    response = render(request, "app/live.html", {"csp_nonce": "n0nce"})
    response["Content-Security-Policy"] = (
        "default-src 'none'; script-src 'nonce-n0nce'; connect-src 'self'; img-src data:"
    )
    return response


def page_script(request: HttpRequest) -> HttpResponse:
    """Serve the script of the live page."""
    return HttpResponse(PAGE_SCRIPT, content_type="text/javascript")


urlpatterns = [
    path("admin/", admin.site.urls),
    path("realtime/", include("django_cocobase_realtime.urls")),
    path("posts", create_posts),
    path("slow-post", create_post_slowly),
    path("messages", create_message),
    path("broadcast", broadcast_news),
    path("large-frame", csrf_exempt(send_large_frame)),
    path("live", live_page),
    path("live.js", page_script, name="page-script"),
    path("static/<path:path>", serve, {"insecure": True}),
]

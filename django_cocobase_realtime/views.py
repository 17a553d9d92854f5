"""HTTP next to the sockets: rooms, publishing, and health for load balancers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

import msgspec
from django.core.exceptions import RequestDataTooBig
from django.db import Error as DatabaseFailure
from django.db import connections, transaction
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST, require_safe

from .auth.backends import AuthenticationUnavailable
from .auth.http import identify
from .conf import conf
from .declarations.registry import room_registry
from .declarations.room import Room
from .events import Broadcast, now
from .identity import Identity
from .presence.base import PresenceUnavailable, RoomListing
from .pubsub.layer import channel_layer
from .rooms import publisher
from .rooms.listing import visible_rooms
from .rooms.publisher import PublishResult
from .utils.concurrency import run_in_threadpool
from .wire.publications import InvalidPublication, Publication, decode

logger = logging.getLogger(__name__)
View = Callable[[HttpRequest], Coroutine[Any, Any, JsonResponse]]


@never_cache
@require_safe
def health(request: HttpRequest) -> JsonResponse:
    """200 while the process answers at all."""
    return JsonResponse({"status": "ok"})


@never_cache
@require_safe
def ready(request: HttpRequest) -> JsonResponse:
    """200 where the database answers and a channel layer is configured, else 503."""
    try:
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseFailure:
        return JsonResponse({"status": "database unavailable"}, status=503)
    if channel_layer() is None:
        return JsonResponse({"status": "no channel layer"}, status=503)
    return JsonResponse({"status": "ok"})


class _Refused(Exception):
    def __init__(self, status: int, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.body = {"detail": detail, **more}


def _answers(view: View) -> View:
    """Refusals as JSON with a ``detail``; 503 where a database, Redis or layer is away."""

    @wraps(view)
    async def answer(request: HttpRequest) -> JsonResponse:
        try:
            return await view(request)
        except _Refused as refused:
            return JsonResponse(refused.body, status=refused.status)
        except (DatabaseFailure, AuthenticationUnavailable, PresenceUnavailable) as error:
            logger.warning("A request could not be answered: %r", error)
            return JsonResponse({"detail": "Unavailable; try again."}, status=503)

    return answer


async def _identity(request: HttpRequest) -> Identity:
    identity = await identify(request)
    if identity is None:
        raise _Refused(401, "Send a valid key in X-API-Key, or as a Bearer token.")
    return identity


@csrf_exempt
@never_cache
@require_GET
@transaction.non_atomic_requests
@_answers
async def rooms(request: HttpRequest) -> JsonResponse:
    """The rooms of the key's project in which somebody is; ``?format=list`` gives a bare array."""
    identity = await _identity(request)
    found = [_room(each) for each in await run_in_threadpool(visible_rooms, identity)]
    if request.GET.get("format") == "list":
        return JsonResponse(found, safe=False)
    return JsonResponse({"rooms": found, "total": len(found)})


def _room(listing: RoomListing) -> dict[str, Any]:
    info = listing.info
    return {
        "id": listing.name,
        "title": info.title,
        "created_by": info.created_by,
        "participants": info.participants,
        "participant_list": [
            {"id": member.id if member.claimed is None else member.claimed, "name": member.name}
            for member in listing.members
        ],
        "created_at": info.created_at,
    }


@csrf_exempt
@never_cache
@require_POST
@transaction.non_atomic_requests
@_answers
async def publish(request: HttpRequest) -> JsonResponse:
    """Send to rooms of the key's project: 202 with how many messages were sent.

    For keys made with ``--publish``. Messages are sent in their order; one whose idempotency key
    was there within five minutes is not counted.
    """
    identity = await _identity(request)
    if not identity.can_publish:
        raise _Refused(
            403, "This key may not publish; make one with realtime_key create --publish."
        )
    try:
        publications = decode(request.body)
    except RequestDataTooBig:
        raise _Refused(413, "The body is too large.") from None
    except InvalidPublication as error:
        raise _Refused(400, str(error)) from None
    for each in publications:
        _check(each)
    sent = 0
    for each in publications:
        outcome = await _send(each, identity.project)
        if outcome is PublishResult.FAILED:
            raise _Refused(503, "The channel layer does not answer; try again.", sent=sent)
        sent += outcome is PublishResult.SENT
    return JsonResponse({"sent": sent}, status=202)


def _check(publication: Publication) -> None:
    limits = conf.limits
    if len(publication.room.encode()) > limits.name_bytes:
        raise _Refused(400, f"room: names may have {limits.name_bytes} bytes at most.")
    if len(msgspec.json.encode(publication.message)) > limits.event_bytes:
        raise _Refused(413, f"message: {limits.event_bytes} bytes at most.")


async def _send(publication: Publication, project: str) -> PublishResult:
    return await publisher.publish(
        Broadcast(room=publication.room, project=project, message=publication.message, at=now()),
        room_registry.find(publication.room) or Room(),
        ephemeral=publication.ephemeral,
        idempotency_key=publication.idempotency_key,
    )

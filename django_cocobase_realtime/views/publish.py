"""The endpoint ``POST publish``, with which other servers broadcast to rooms."""

from __future__ import annotations

import msgspec
from django.core.exceptions import RequestDataTooBig
from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from ..conf import conf
from ..declarations.operations import OPERATIONS_ROOM
from ..declarations.registry import room_registry
from ..declarations.room import Room
from ..events import Broadcast, now
from ..rooms import publisher
from ..rooms.publisher import PublishResult
from ..wire.publications import InvalidPublication, Publication, decode
from .base import RequestRefused, json_errors, require_identity


@csrf_exempt
@never_cache
@require_POST
@transaction.non_atomic_requests
@json_errors
async def publish(request: HttpRequest) -> JsonResponse:
    """Broadcast messages to rooms of the key's project; answer with 202 and how many were sent.

    The key must have been created with ``--publish``. The messages are sent in order. A message
    whose idempotency key was used within the last five minutes is neither sent nor counted.
    """
    identity = await require_identity(request)
    if not identity.can_publish or identity.is_read_only:
        raise RequestRefused(
            403, "This key may not publish; create one with realtime_key create --publish."
        )
    try:
        publications = decode(request.body)
    except RequestDataTooBig:
        raise RequestRefused(413, "The body is too large.") from None
    except InvalidPublication as error:
        raise RequestRefused(400, str(error)) from None
    for publication in publications:
        if publication.room == OPERATIONS_ROOM or not identity.may_use_room(publication.room):
            raise RequestRefused(403, f"This key may not use the room {publication.room!r}.")
        _check_size(publication)
    sent = 0
    for publication in publications:
        result = await _publish(publication, identity.project)
        if result is PublishResult.FAILED:
            raise RequestRefused(503, "The channel layer does not answer; try again.", sent=sent)
        sent += result is PublishResult.SENT
    return JsonResponse({"sent": sent}, status=202)


def _check_size(publication: Publication) -> None:
    limits = conf.limits
    if len(publication.room.encode()) > limits.name_bytes:
        raise RequestRefused(400, f"room: names may have {limits.name_bytes} bytes at most.")
    if len(msgspec.json.encode(publication.message)) > limits.event_bytes:
        raise RequestRefused(413, f"message: {limits.event_bytes} bytes at most.")


async def _publish(publication: Publication, project: str) -> PublishResult:
    return await publisher.publish(
        Broadcast(room=publication.room, project=project, message=publication.message, at=now()),
        room_registry.find(publication.room) or Room(),
        ephemeral=publication.ephemeral,
        idempotency_key=publication.idempotency_key,
    )

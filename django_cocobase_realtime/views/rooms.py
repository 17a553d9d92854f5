"""The endpoint ``GET rooms``, which lists the rooms of a project."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET

from ..presence.base import RoomListing
from ..rooms.listing import visible_rooms
from ..utils.concurrency import run_in_threadpool
from .base import json_errors, require_identity


@csrf_exempt
@never_cache
@require_GET
@transaction.non_atomic_requests
@json_errors
async def rooms(request: HttpRequest) -> JsonResponse:
    """Return the rooms that have members and that the identity may join, with their members.

    With ``?format=list`` the response is an array instead of an object with ``rooms``.
    """
    identity = await require_identity(request)
    items = [_as_json(listing) for listing in await run_in_threadpool(visible_rooms, identity)]
    if request.GET.get("format") == "list":
        return JsonResponse(items, safe=False)
    return JsonResponse({"rooms": items, "total": len(items)})


def _as_json(listing: RoomListing) -> dict[str, Any]:
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

"""The endpoint ``GET rooms``, which lists the rooms of a project."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET

from ..events import Member
from ..identity import Identity
from ..presence.base import RoomListing
from ..rooms import list_tokens
from ..rooms.listing import list_visible_rooms
from ..utils.concurrency import run_in_threadpool
from .base import RequestRefused, json_errors, require_identity

DEFAULT_LIMIT = 100  # rooms on a page
MAX_LIMIT = 1000  # that a client may ask for
# seconds; an answer takes a multiple of it, so that clients cannot infer from the time how many
# permissions were evaluated for rooms that they may not join
STEP = 0.05


@csrf_exempt
@never_cache
@require_GET
@transaction.non_atomic_requests
@json_errors
async def rooms(request: HttpRequest) -> JsonResponse:
    """Return the rooms that have members and that the identity may join, with their members.

    ``next`` is the value of ``after`` with which the next page begins, or null. It is valid for
    the same user or key only, and reveals nothing, see `rooms.list_tokens`. With
    ``?format=list`` the response is an array, which has no ``next``, instead of an object with
    ``rooms``.
    """
    identity = await require_identity(request)
    is_array = request.GET.get("format") == "list"
    limit = _limit(request, MAX_LIMIT if is_array else DEFAULT_LIMIT)
    after = _after(request, identity)
    started_at = time.monotonic()
    page = await run_in_threadpool(list_visible_rooms, identity, limit, after)
    await asyncio.sleep(-(time.monotonic() - started_at) % STEP)
    items = [_as_json(listing) for listing in page.rooms]
    if is_array:
        return JsonResponse(items, safe=False)
    following = None if page.next is None else list_tokens.encode(identity, page.next)
    return JsonResponse({"rooms": items, "total": len(items), "next": following})


def _limit(request: HttpRequest, default: int) -> int:
    text = request.GET.get("limit", str(default))
    limit = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not 1 <= limit <= MAX_LIMIT:
        raise RequestRefused(400, f"limit: 1 to {MAX_LIMIT}.")
    return limit


def _after(request: HttpRequest, identity: Identity) -> str:
    token = request.GET.get("after")
    try:
        return "" if token is None else list_tokens.decode(identity, token)
    except list_tokens.InvalidListToken:
        message = "after: send the value of next, with the credential of the page before."
        raise RequestRefused(400, message) from None


def _as_json(listing: RoomListing) -> dict[str, Any]:
    info = listing.info
    return {
        "id": listing.name,
        "title": info.title,
        "created_by": info.created_by,
        "created_by_verified": info.created_by_verified,
        "participants": info.participants,
        "participant_list": [_member_as_json(member) for member in listing.members],
        "created_at": info.created_at,
    }


def _member_as_json(member: Member) -> dict[str, Any]:
    """Return a member as the SDKs need it: with the id that its client claims, if it claims one."""
    if member.claimed is None:
        return {"id": member.id, "name": member.name, "verified": True}
    return {"id": member.claimed, "name": member.name, "verified": False}

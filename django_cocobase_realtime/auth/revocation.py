"""Tells live connections at once that their credential has ended.

Signals make it fast; the hub's look at all live credentials every ``REVOCATION_POLL`` seconds
makes it certain, since signals miss other programs and layers lose messages.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_out
from django.db import transaction
from django.db.models.signals import post_delete, post_save

from ..events import DisconnectRequested
from ..pubsub.broker import broker
from ..wire.codes import CloseCode
from .api_key import KIND

UID = "django_cocobase_realtime.revocation"


def connect() -> None:
    """Listen to keys and users."""
    from ..models import ApiKey

    user = get_user_model()
    post_save.connect(_key_saved, sender=ApiKey, dispatch_uid=UID)
    post_delete.connect(_key_deleted, sender=ApiKey, dispatch_uid=UID)
    post_save.connect(_user_saved, sender=user, dispatch_uid=UID)
    post_delete.connect(_user_deleted, sender=user, dispatch_uid=UID)
    user_logged_out.connect(_logged_out, dispatch_uid=UID)


def _kick(using: str | None, **who: str) -> None:
    event = DisconnectRequested(code=int(CloseCode.BAD_CREDENTIAL), **who)
    transaction.on_commit(lambda: broker.publish(event), using=using, robust=True)


def _key_saved(instance: Any, created: bool, using: str, **kwargs: Any) -> None:
    if not created and not instance.is_live():
        _kick(using, credential=f"{KIND}:{instance.prefix}")


def _key_deleted(instance: Any, using: str, **kwargs: Any) -> None:
    _kick(using, credential=f"{KIND}:{instance.prefix}")


def _user_saved(instance: Any, created: bool, using: str, **kwargs: Any) -> None:
    if not created and not instance.is_active:
        _kick(using, user=str(instance.pk))


def _user_deleted(instance: Any, using: str, **kwargs: Any) -> None:
    _kick(using, user=str(instance.pk))


def _logged_out(request: Any, **kwargs: Any) -> None:
    key = getattr(getattr(request, "session", None), "session_key", None)
    if key:
        from .django_session import session_credential

        _kick(None, credential=session_credential(key))

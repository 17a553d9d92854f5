"""Receivers of the signals after which connections are closed or reauthorized.

Signals take effect immediately, but changes by other programs send none, and a channel layer may
lose messages. Therefore the hub also checks the credentials and permissions of all connections
every ``REVOCATION_POLL`` seconds. A project whose permissions depend on something else, such as
another model, calls ``permissions_changed(user)``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.signals import user_logged_out
from django.db import transaction
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete

from ..events import DisconnectRequested, Event, PermissionsChanged
from ..identity import is_active, user_key
from ..models import ApiKey
from ..pubsub.broker import broker
from ..wire.codes import CloseCode
from .api_key import key_credential
from .django_session import session_credential
from .users import group_members, group_model, is_time_field, through_model

DISPATCH_UID = "django_cocobase_realtime.revocation"
MAX_NAMED_USERS = 1000  # users that one event lists; if there are more, it concerns all users


def connect() -> None:
    """Connect the receivers for API keys, users, groups and permissions."""
    user_model = get_user_model()
    post_save.connect(_key_saved, sender=ApiKey, dispatch_uid=DISPATCH_UID)
    post_delete.connect(_key_deleted, sender=ApiKey, dispatch_uid=DISPATCH_UID)
    post_save.connect(_user_saved, sender=user_model, dispatch_uid=DISPATCH_UID)
    post_delete.connect(_user_deleted, sender=user_model, dispatch_uid=DISPATCH_UID)
    user_logged_out.connect(_logged_out, dispatch_uid=DISPATCH_UID)
    for name in ("groups", "user_permissions"):
        through = through_model(user_model, name)
        if through is not None:
            m2m_changed.connect(_user_m2m_changed, sender=through, dispatch_uid=DISPATCH_UID)
    group = group_model()
    if group is not None:
        pre_delete.connect(_group_deleted, sender=group, dispatch_uid=DISPATCH_UID)
        through = through_model(group, "permissions")
        if through is not None:
            m2m_changed.connect(_group_m2m_changed, sender=through, dispatch_uid=DISPATCH_UID)


def announce_permissions_changed(users: Iterable[str] | None, using: str | None = None) -> None:
    """Publish, after the commit, that the permissions of users may have changed.

    ``users`` are as in `Identity.user_key`; None stands for all users. Each process then evaluates
    their permissions again.
    """
    keys = None if users is None else tuple(users)
    if keys == ():
        return
    if keys is not None and len(keys) > MAX_NAMED_USERS:
        keys = None
    _publish_on_commit(PermissionsChanged(keys), using)


def _disconnect(using: str | None, **target: str) -> None:
    """Close the connections of a ``user`` or of a ``credential`` after the commit."""
    event = DisconnectRequested(code=int(CloseCode.BAD_CREDENTIAL), **target)
    _publish_on_commit(event, using)


def _publish_on_commit(event: Event, using: str | None) -> None:
    transaction.on_commit(lambda: broker.publish(event), using=using, robust=True)


# receivers


def _key_saved(instance: Any, created: bool, using: str, **kwargs: Any) -> None:
    if not created and not instance.is_live():
        _disconnect(using, credential=key_credential(instance.prefix))


def _key_deleted(instance: Any, using: str, **kwargs: Any) -> None:
    _disconnect(using, credential=key_credential(instance.prefix))


def _user_saved(
    instance: Any, created: bool, using: str, update_fields: frozenset[str] | None, **kwargs: Any
) -> None:
    if created:
        return
    if not is_active(instance):
        _disconnect(using, user=user_key(instance.pk))
    if not (update_fields and _are_time_fields(instance, update_fields)):
        announce_permissions_changed([user_key(instance.pk)], using)


def _are_time_fields(instance: Any, names: frozenset[str]) -> bool:
    """Return whether all these fields contain times, such as a last login.

    Some projects save them with every request, and no permission depends on them.
    """
    return all(is_time_field(instance._meta.get_field(name)) for name in names)


def _user_deleted(instance: Any, using: str, **kwargs: Any) -> None:
    _disconnect(using, user=user_key(instance.pk))


def _logged_out(request: Any, **kwargs: Any) -> None:
    key = getattr(getattr(request, "session", None), "session_key", None)
    if key:
        _disconnect(None, credential=session_credential(key))


def _user_m2m_changed(
    instance: Any, action: str, reverse: bool, pk_set: set[Any] | None, using: str, **kwargs: Any
) -> None:
    # with `reverse`, `instance` is a group or permission, and `pk_set` contains users
    if action in ("post_add", "post_remove"):
        pks = pk_set or () if reverse else [instance.pk]
        announce_permissions_changed(map(user_key, pks), using)
    elif action == "post_clear":
        announce_permissions_changed(None if reverse else [user_key(instance.pk)], using)


def _group_m2m_changed(
    instance: Any, action: str, reverse: bool, using: str, **kwargs: Any
) -> None:
    # with `reverse`, `instance` is a permission, which may be changed for any group
    if action in ("post_add", "post_remove", "post_clear"):
        announce_permissions_changed(None if reverse else _members(instance), using)


def _group_deleted(instance: Any, using: str, **kwargs: Any) -> None:
    announce_permissions_changed(_members(instance), using)


def _members(group: Any) -> list[str]:
    """Return the keys of a group's users, at most one more than `MAX_NAMED_USERS`.

    With more than that number, the caller announces a change for all users.
    """
    return [user_key(pk) for pk in group_members(group, limit=MAX_NAMED_USERS + 1)]

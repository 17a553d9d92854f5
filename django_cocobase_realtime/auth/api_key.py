"""Authentication by API keys of the form ``crk_PREFIX_secret``.

The database stores a hash of the secret only.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta

from django.db import DatabaseError, connections, router, transaction
from django.db.models import QuerySet
from django.utils import timezone

from ..identity import Identity, display_name, public_name
from ..models import PREFIX_LENGTH, ApiKey
from ..types import Scope
from .base import Answer, Authenticator, Credential, first

logger = logging.getLogger(__name__)

KIND = "key"  # prefix of the credentials of these identities
KEY_PREFIX = "crk_"  # with which all keys begin
# a key's `last_used_at` is not updated more often
LAST_USED_PRECISION = timedelta(minutes=1)


class ApiKeyAuthenticator(Authenticator):
    """Accepts keys that were created by ``realtime_key create`` or in the admin."""

    kind = KIND

    def authenticate(self, token: str | None, scope: Scope) -> Identity | None:
        """Return the identity of the key's user, or of the key itself if it has no user."""
        return first(self.authenticate_many([(token, scope)]))

    def authenticate_many(self, credentials: Sequence[Credential]) -> list[Answer]:
        """Return the identities of several keys; see `together`."""
        texts = [t if t is not None and t.startswith(KEY_PREFIX) else "" for t, _ in credentials]
        rows = _read_keys(text.split("_", 2)[1] for text in texts if text)
        keys = [ApiKey.objects.find(text, rows) for text in texts]
        _store_use({key.pk: key for key in keys if key is not None}.values())
        return [None if key is None else key_identity(key) for key in keys]

    def revoked(self, identities: Collection[Identity]) -> set[str]:
        """Return the keys that were revoked, expired, or moved to another project or user."""
        keys = _find_keys(identities).select_related("user")
        live = {
            (key_credential(key.prefix), key.project, key.user_id) for key in keys if key.is_live()
        }
        return {
            identity.credential
            for identity in identities
            if (identity.credential, identity.project, identity.user_id) not in live
        }

    def changed(self, identities: Collection[Identity]) -> set[str]:
        """Return the keys whose scope was changed."""
        scopes = {key_credential(key.prefix): key.scope for key in _find_keys(identities)}
        return {
            identity.credential
            for identity in identities
            if scopes.get(identity.credential, identity.scope) != identity.scope
        }


def _read_keys(prefixes: Iterable[str]) -> dict[str, ApiKey]:
    """Return the keys with these prefixes, by prefix. Makes one query, or none."""
    possible = {prefix for prefix in prefixes if len(prefix) == PREFIX_LENGTH}
    if not possible:
        return {}
    rows = ApiKey.objects.select_related("user").filter(prefix__in=possible).order_by()
    return {key.prefix: key for key in rows}


def key_identity(key: ApiKey) -> Identity:
    """Return the identity of a key that is live."""
    return Identity(
        credential=key_credential(key.prefix),
        user=key.user,
        user_id=None if key.user is None else key.user.pk,
        name=public_name(key.name, default="App") if key.user is None else display_name(key.user),
        project=key.project,
        expires_at=key.expires_at,
        can_publish=key.can_publish,
        scope=key.scope,
    )


def _store_use(keys: Iterable[ApiKey]) -> None:
    """Store that keys are used now, unless they were used a moment ago."""
    now = timezone.now()
    used = sorted(
        key.pk
        for key in keys
        if key.last_used_at is None or now - key.last_used_at > LAST_USED_PRECISION
    )
    if not used:
        return
    rows = ApiKey.objects.filter(pk__in=used).order_by()
    using = router.db_for_write(ApiKey)
    try:
        if len(used) == 1 or not connections[using].features.has_select_for_update_skip_locked:
            rows.update(last_used_at=now)
            return
        with transaction.atomic(using=using):
            # others may lock some of the rows in another order
            free = rows.using(using).select_for_update(skip_locked=True)
            ApiKey.objects.filter(pk__in=list(free.values_list("pk", flat=True))).update(
                last_used_at=now
            )
    except DatabaseError as error:  # for example a read-only replica, or a locked SQLite
        logger.info("The time of a key's last use was not stored: %r", error)


def _find_keys(identities: Collection[Identity]) -> QuerySet[ApiKey]:
    prefixes = {identity.credential.partition(":")[2] for identity in identities}
    return ApiKey.objects.filter(prefix__in=prefixes)


def key_credential(prefix: str) -> str:
    """Return `Identity.credential` for a key."""
    return f"{KIND}:{prefix}"

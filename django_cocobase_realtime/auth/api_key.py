"""API keys: ``crk_PREFIX_secret``, hashed at rest."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any

from django.db import DatabaseError
from django.utils import timezone

from ..identity import Identity
from .base import Authenticator

logger = logging.getLogger(__name__)

KIND = "key"
LAST_USED_PRECISION = timedelta(minutes=1)


class ApiKeyAuthenticator(Authenticator):
    """Accepts the keys that ``realtime_key create`` or the admin made."""

    kind = KIND

    def authenticate(self, token: str | None, scope: Mapping[str, Any]) -> Identity | None:
        """The key's identity: its user's, or a bare one."""
        from ..models import ApiKey

        if token is None or not token.startswith("crk_"):
            return None
        key = ApiKey.objects.find(token)
        if key is None:
            return None
        now = timezone.now()
        if key.last_used_at is None or now - key.last_used_at > LAST_USED_PRECISION:
            try:
                ApiKey.objects.filter(pk=key.pk).update(last_used_at=now)
            except DatabaseError as error:  # a read-only replica, a busy SQLite
                logger.info("The last use of a key was not noted: %r", error)
        return Identity(
            credential=f"{KIND}:{key.prefix}",
            user=key.user,
            user_id=None if key.user is None else key.user.pk,
            name=key.name if key.user is None else key.user.get_username(),
            project=key.project,
            expires_at=key.expires_at,
            can_publish=key.can_publish,
        )

    def revoked(self, identities: Collection[Identity]) -> set[str]:
        """Keys that were revoked, deleted, have expired, or whose user is no longer active; and
        those that speak for another project or user now.
        """
        from ..models import ApiKey

        prefixes = {identity.credential.partition(":")[2] for identity in identities}
        keys = ApiKey.objects.select_related("user").filter(prefix__in=prefixes)
        live = {(f"{KIND}:{k.prefix}", k.project, k.user_id) for k in keys if k.is_live()}
        return {
            i.credential for i in identities if (i.credential, i.project, i.user_id) not in live
        }

"""Tables of the app."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
from datetime import datetime
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.utils import timezone

from .log.models import LogEvent, Stream

__all__ = ["ApiKey", "LogEvent", "Stream"]

PREFIX_LENGTH = 8
_ALPHABET = string.ascii_letters + string.digits


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def hash_secret(secret: str) -> str:
    """What is stored of a secret.

    One round of SHA-256 is right here: the secret is 43 random characters (256 bits), so there is
    nothing to guess, and every connection pays for the hash.
    """
    return hashlib.sha256(secret.encode()).hexdigest()


class ApiKeyManager(models.Manager["ApiKey"]):
    """Makes and finds keys."""

    def create_key(
        self,
        name: str,
        *,
        project: str = "default",
        can_publish: bool = False,
        user: Any = None,
        expires_at: datetime | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key and its plain text ``crk_PREFIX_secret``, which is stored nowhere."""
        prefix, secret = _random(PREFIX_LENGTH), _random(43)
        key = self.create(
            name=name,
            project=project,
            can_publish=can_publish,
            user=user,
            expires_at=expires_at,
            prefix=prefix,
            hashed_secret=hash_secret(secret),
        )
        return key, f"crk_{prefix}_{secret}"

    def find(self, text: str) -> ApiKey | None:
        """The live key that this text is, None for anything else."""
        kind, _, rest = text.partition("_")
        prefix, _, secret = rest.partition("_")
        if kind != "crk" or len(prefix) != PREFIX_LENGTH or not secret:
            return None
        key = self.select_related("user").filter(prefix=prefix).first()
        # hash and compare in any case: the answer takes as long for an unknown prefix
        known = key.hashed_secret if key is not None else "0" * 64
        same = hmac.compare_digest(known, hash_secret(secret))
        return key if key is not None and same and key.is_live() else None


class ApiKey(models.Model):
    """A credential of an app (or, with ``user``, of that user) in one project."""

    name = models.CharField(max_length=100, help_text="What it is for.")
    project = models.CharField(max_length=128, default="default")
    prefix = models.CharField(max_length=PREFIX_LENGTH, unique=True, editable=False)
    hashed_secret = models.CharField(max_length=64, editable=False)
    can_publish = models.BooleanField(
        default=False, help_text="May send to rooms over HTTP: for servers only."
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.CASCADE,
        null=True,
        blank=True,
        related_name="+",
        help_text="Whom the key acts for; empty for an app.",
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)

    objects: ClassVar[ApiKeyManager] = ApiKeyManager()

    class Meta:
        """Listed by project."""

        verbose_name = "API key"
        ordering: ClassVar[list[str]] = ["project", "name", "pk"]

    def __str__(self) -> str:
        return f"{self.name} (crk_{self.prefix}_…)"

    def is_live(self, now: datetime | None = None) -> bool:
        """Neither revoked nor expired, and its user, where it has one, is active."""
        if self.revoked_at is not None:
            return False
        if self.expires_at is not None and self.expires_at <= (now or timezone.now()):
            return False
        return self.user is None or bool(self.user.is_active)

    @property
    def state(self) -> str:
        """``live``, ``expired`` or ``revoked``, for people."""
        if self.revoked_at is not None:
            return "revoked"
        return "live" if self.is_live() else "expired"

    def revoke(self) -> None:
        """End it; its live connections are closed within seconds."""
        if self.revoked_at is None:
            self.revoked_at = timezone.now()
            self.save(update_fields=["revoked_at"])

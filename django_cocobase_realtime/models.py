"""Tables of the app."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
from datetime import datetime
from typing import Any, ClassVar

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.utils import timezone

from .log.models import LogEvent, Stream, new_epoch

__all__ = [
    "ApiKey",
    "Claim",
    "LogEvent",
    "PresenceConnection",
    "PresenceMember",
    "PresenceRoom",
    "PresenceServer",
    "RoomMessage",
    "RoomStream",
    "Stream",
]

if not apps.is_installed("django_cocobase_realtime"):  # asgi.py alone leads here
    raise ImproperlyConfigured("Add 'django_cocobase_realtime' to INSTALLED_APPS.")

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


class PresenceServer(models.Model):
    """A server process that holds connections, until its lease is over (seconds since 1970)."""

    id = models.CharField(primary_key=True, max_length=32)
    expires_at = models.FloatField(db_index=True)

    def __str__(self) -> str:
        return self.id


class PresenceRoom(models.Model):
    """A room in which somebody is. Its row is locked by whoever changes its members."""

    project = models.CharField(max_length=128)
    name = models.CharField(max_length=255)
    title = models.CharField(max_length=255)
    created_by = models.CharField(max_length=255)
    created_at = models.FloatField()
    version = models.BigIntegerField()
    participants = models.IntegerField(default=0)

    class Meta:
        """Rooms of two projects never meet."""

        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["project", "name"], name="realtime_one_room"),
        ]

    def __str__(self) -> str:
        return f"{self.project}/{self.name}"


class PresenceMember(models.Model):
    """A member of a room; ``state`` is JSON."""

    room = models.ForeignKey(PresenceRoom, models.CASCADE, related_name="members")
    member = models.CharField(max_length=255)
    name = models.CharField(max_length=255)
    claimed = models.CharField(max_length=255, null=True)  # noqa: DJ001 - null is "a user"
    state = models.TextField(default="{}")

    class Meta:
        """One a user and room."""

        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["room", "member"], name="realtime_one_member"),
        ]

    def __str__(self) -> str:
        return self.member


class PresenceConnection(models.Model):
    """A connection by which a member is in a room; ``leaves_at`` where it was lost."""

    room = models.ForeignKey(PresenceRoom, models.CASCADE, related_name="connections")
    member = models.CharField(max_length=255)
    connection = models.CharField(max_length=32)
    server = models.CharField(max_length=32, db_index=True)
    leaves_at = models.FloatField(null=True, db_index=True)

    class Meta:
        """Each once a room, and found by its member."""

        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["room", "connection"], name="realtime_one_place"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["room", "member"], name="realtime_places_of_member"),
        ]

    def __str__(self) -> str:
        return self.connection


class Claim(models.Model):
    """Something that happens once: the digest of its name, until when it is remembered."""

    name = models.CharField(primary_key=True, max_length=64)
    expires_at = models.FloatField(db_index=True)

    def __str__(self) -> str:
        return self.name


class RoomStream(models.Model):
    """The numbered broadcasts of a room that keeps some: those above ``head`` - kept."""

    project = models.CharField(max_length=128)
    name = models.CharField(max_length=255)
    epoch = models.CharField(max_length=16, default=new_epoch)
    head = models.BigIntegerField(default=0)

    class Meta:
        """One a room."""

        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["project", "name"], name="realtime_one_stream"),
        ]

    def __str__(self) -> str:
        return f"{self.project}/{self.name}"


class RoomMessage(models.Model):
    """One kept broadcast: ``event`` is JSON."""

    stream = models.ForeignKey(RoomStream, models.CASCADE, related_name="messages")
    seq = models.BigIntegerField()
    event = models.TextField()
    created_at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        """Dense numbers a room."""

        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["stream", "seq"], name="realtime_dense_messages"),
        ]

    def __str__(self) -> str:
        return f"{self.stream} {self.seq}"

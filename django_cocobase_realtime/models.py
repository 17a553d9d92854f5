"""The tables of the app: API keys, the change log, presence, and the history of rooms.

That of handlers is in `handler_position`.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, ClassVar

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import models
from django.utils import timezone

from .identity import AccessScope, as_names, is_active, stored_names
from .utils.logged_text import LoggedText

if not apps.is_installed("django_cocobase_realtime"):
    # the error that Django would raise does not say what to do
    raise ImproperlyConfigured("Add 'django_cocobase_realtime' to INSTALLED_APPS.")

from .handler_position import Handler as Handler  # a model, so after the check

# an API key is the text crk_PREFIX_secret
PREFIX_LENGTH = 8  # characters
SECRET_LENGTH = 43  # characters, which have 256 random bits
KEY_ALPHABET = string.ascii_letters + string.digits
READ_ONLY_PUBLISHES = "A key that may publish cannot be read-only."


def new_epoch() -> str:
    """Return a new name for an epoch of a stream."""
    return secrets.token_hex(4)


# API keys
def _random_text(length: int) -> str:
    return "".join(secrets.choice(KEY_ALPHABET) for _ in range(length))


def hash_secret(secret: str) -> str:
    """Return the hash of a secret, as it is stored.

    One round of SHA-256 is enough, because the secret has 256 random bits and cannot be guessed;
    a slow hash would delay every connection.
    """
    return hashlib.sha256(secret.encode()).hexdigest()


class ApiKeyManager(models.Manager["ApiKey"]):
    """The manager of API keys."""

    def create_key(
        self,
        name: str,
        *,
        project: str = "default",
        can_publish: bool = False,
        user: Any = None,
        expires_at: datetime | None = None,
        collections: Iterable[str] | None = None,
        rooms: Iterable[str] | None = None,
        read_only: bool = False,
    ) -> tuple[ApiKey, str]:
        """Create a key; return it and its text ``crk_PREFIX_secret``, which is not stored.

        With ``collections`` and ``rooms``, which are names and patterns of names, the key can be
        used for these only. Raises ``TypeError`` for a single string, and ``ValueError`` for an
        empty name and for a read-only key that may publish.
        """
        collections = _checked_names("collections", collections)
        rooms = _checked_names("rooms", rooms)
        if can_publish and read_only:
            raise ValueError(READ_ONLY_PUBLISHES)
        prefix, secret = _random_text(PREFIX_LENGTH), _random_text(SECRET_LENGTH)
        key = self.create(
            name=name,
            project=project,
            can_publish=can_publish,
            user=user,
            expires_at=expires_at,
            collections=collections,
            rooms=rooms,
            read_only=read_only,
            prefix=prefix,
            hashed_secret=hash_secret(secret),
        )
        return key, f"crk_{prefix}_{secret}"

    def find(self, text: str, keys: Mapping[str, ApiKey] | None = None) -> ApiKey | None:
        """Return the live key with this text, or None; from ``keys``, by prefix, if given."""
        kind, _, rest = text.partition("_")
        prefix, _, secret = rest.partition("_")
        if kind != "crk" or len(prefix) != PREFIX_LENGTH or not secret:
            return None
        rows = self.select_related("user").filter(prefix=prefix)
        key = rows.first() if keys is None else keys.get(prefix)
        # compare hashes even if the prefix is unknown, so that both cases take the same time
        hashed_secret = key.hashed_secret if key is not None else "0" * 64
        matches = hmac.compare_digest(hashed_secret, hash_secret(secret))
        return key if key is not None and matches and key.is_live() else None


def _checked_names(attribute: str, names: Iterable[str] | None) -> list[str] | None:
    """Return the names for a new key as a list; None if it is not restricted."""
    checked = as_names(attribute, names)
    if checked is not None and not all(name.strip() for name in checked):
        raise ValueError(f"The names in {attribute} must not be empty.")
    return None if checked is None else list(checked)


class ApiKey(models.Model):
    """An API key: a credential of an app, or of a user if ``user`` is set, in one project."""

    name = models.CharField(max_length=100, help_text="Purpose of the key.")
    project = models.CharField(max_length=128, default="default")
    prefix = models.CharField(max_length=PREFIX_LENGTH, unique=True, editable=False)
    hashed_secret = models.CharField(max_length=64, editable=False)
    can_publish = models.BooleanField(
        default=False, help_text="May send to rooms over HTTP; for servers only."
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.CASCADE,
        null=True,
        blank=True,
        related_name="+",
        help_text="User that the key acts for; empty for an app.",
    )
    # the scope: lists of collections' names and of patterns of rooms' names; null for all
    collections = models.JSONField(null=True, blank=True)
    rooms = models.JSONField(null=True, blank=True)
    read_only = models.BooleanField(
        default=False, db_default=False, help_text="May read, but send nothing to other clients."
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)

    objects: ClassVar[ApiKeyManager] = ApiKeyManager()

    class Meta:
        verbose_name = "API key"
        ordering: ClassVar[list[str]] = ["project", "name", "pk"]

    def __str__(self) -> str:
        return f"{self.name} (crk_{self.prefix}_…)"

    def clean(self) -> None:
        """Check that the key is not both read-only and allowed to publish."""
        super().clean()
        if self.can_publish and self.read_only:
            raise ValidationError({"read_only": READ_ONLY_PUBLISHES})

    @property
    def scope(self) -> AccessScope:
        """The collections and rooms that the key may use, and whether it may only read."""
        collections, rooms = stored_names(self.collections), stored_names(self.rooms)
        return AccessScope(
            None if collections is None else frozenset(collections), rooms, self.read_only
        )

    def is_live(self, now: datetime | None = None) -> bool:
        """Return whether the key is not revoked, not expired, and its user, if any, is active."""
        if self.revoked_at is not None:
            return False
        if self.expires_at is not None and self.expires_at <= (now or timezone.now()):
            return False
        return self.user is None or is_active(self.user)

    @property
    def state(self) -> str:
        """``live``, ``expired`` or ``revoked``, for display."""
        if self.revoked_at is not None:
            return "revoked"
        return "live" if self.is_live() else "expired"

    def revoke(self) -> None:
        """Revoke the key. Its live connections are closed within seconds."""
        if self.revoked_at is None:
            self.revoked_at = timezone.now()
            self.save(update_fields=["revoked_at"])


class Connection(models.Model):  # noqa: DJ008  # has no rows
    """The permissions of the admin's pages about connections. It has no table."""

    class Meta:
        managed = False
        default_permissions = ()
        permissions = (
            ("view_connections", "Can view connections, streams and rooms"),
            ("disconnect_connections", "Can close connections"),
        )


# the change log; these tables exist in every database that holds a watched model


class Stream(models.Model):
    """The stream of a collection: the sequence of its logged changes.

    The log contains the changes with the numbers ``floor`` + 1 to ``head``. A new ``epoch`` is set
    when earlier numbers lose their meaning, for example after a backup was restored.

    In a hidden stream, ``derived`` is the number of the last change from which events of other
    streams were derived; null if this was never necessary. If it is lower than ``floor``, changes
    were deleted before that.
    """

    collection = models.CharField(max_length=128, unique=True)
    epoch = models.CharField(max_length=16, default=new_epoch)
    head = models.BigIntegerField(default=0)
    floor = models.BigIntegerField(default=0)
    derived = models.BigIntegerField(null=True)

    class Meta:
        verbose_name = "stream"

    def __str__(self) -> str:
        return f"{self.collection} ({self.floor}, {self.head}]"


class LogEvent(models.Model):
    """A logged change, inserted in the transaction that changed the row.

    ``seq`` is its number in the stream, null until it is assigned, after the commit, as is
    ``related_seq``, which is that of `Change`. ``before``, ``after``, ``changed``, ``document`` and
    ``related`` are JSON in text columns: no query looks into them, and text is the fastest type to
    write.
    """

    id = models.BigAutoField(primary_key=True)
    collection = models.CharField(max_length=128)
    seq = models.BigIntegerField(null=True)
    related_seq = models.BigIntegerField(null=True)
    transaction_id = models.CharField(max_length=32)
    op = models.CharField(max_length=7)
    document_id = LoggedText()
    before = LoggedText(null=True)
    after = LoggedText(null=True)
    changed = models.TextField(null=True)
    document = models.TextField(null=True)
    related = models.TextField(null=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name = "logged event"
        constraints = [
            # partial, so that inserting a change, which has no number yet, does not update it
            models.UniqueConstraint(
                fields=["collection", "seq"],
                name="realtime_seq",
                condition=models.Q(seq__isnull=False),
            ),
        ]
        indexes = [
            # for the query for changes without a number
            models.Index(
                fields=["collection", "id"],
                name="realtime_unsequenced",
                condition=models.Q(seq__isnull=True),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.collection} {self.seq}: {self.op} {self.document_id}"


# presence; all times are seconds since 1970 by the clock of the database


class PresenceServer(models.Model):
    """A server process with members of rooms. Its lease lasts until ``expires_at``."""

    id = models.CharField(primary_key=True, max_length=32)
    expires_at = models.FloatField(db_index=True)

    def __str__(self) -> str:
        return self.id


class PresenceRoom(models.Model):
    """A room that has members. The row is locked while they are changed."""

    project = models.CharField(max_length=128)
    name = models.CharField(max_length=255)
    title = models.CharField(max_length=255)
    created_by = models.CharField(max_length=255)
    # whether it is the id of a member, and not claimed; null in rooms of an earlier version
    created_by_verified = models.BooleanField(null=True)
    created_at = models.FloatField()
    version = models.BigIntegerField()
    participants = models.IntegerField(default=0)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["project", "name"], name="realtime_one_room"),
        ]

    def __str__(self) -> str:
        return f"{self.project}/{self.name}"


class PresenceMember(models.Model):
    """A member of a room. ``member`` is its id in the room, and ``state`` is JSON."""

    room = models.ForeignKey(PresenceRoom, models.CASCADE, related_name="members")
    member = models.CharField(max_length=255)
    name = models.CharField(max_length=255)
    # for a client without a user: the user id that it claims to have; null for a user
    claimed = models.CharField(max_length=255, null=True)
    state = models.TextField(default="{}")

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["room", "member"], name="realtime_one_member"),
        ]

    def __str__(self) -> str:
        return self.member


class PresenceConnection(models.Model):
    """A connection of a member of a room."""

    room = models.ForeignKey(PresenceRoom, models.CASCADE, related_name="connections")
    member = models.CharField(max_length=255)
    connection = models.CharField(max_length=32)
    server = models.CharField(max_length=32, db_index=True)
    # for a lost connection: the time at which it leaves the room; null for others
    leaves_at = models.FloatField(null=True, db_index=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["room", "connection"], name="realtime_one_place"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["room", "member"], name="realtime_places_of_member"),
        ]

    def __str__(self) -> str:
        return self.connection


class Claim(models.Model):
    """A used idempotency key. ``name`` is its hash."""

    name = models.CharField(primary_key=True, max_length=64)
    expires_at = models.FloatField(db_index=True)

    def __str__(self) -> str:
        return self.name


# the history of rooms


class RoomStream(models.Model):
    """The stream of a room: the sequence of its kept broadcasts. ``head`` is the last number."""

    project = models.CharField(max_length=128)
    name = models.CharField(max_length=255)
    epoch = models.CharField(max_length=16, default=new_epoch)
    head = models.BigIntegerField(default=0)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["project", "name"], name="realtime_one_stream"),
        ]

    def __str__(self) -> str:
        return f"{self.project}/{self.name}"


class RoomMessage(models.Model):
    """A kept broadcast of a room. ``seq`` is its number in the stream, and ``event`` is JSON."""

    stream = models.ForeignKey(RoomStream, models.CASCADE, related_name="messages")
    seq = models.BigIntegerField()
    event = models.TextField()
    created_at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["stream", "seq"], name="realtime_dense_messages"),
        ]

    def __str__(self) -> str:
        return f"{self.stream} {self.seq}"

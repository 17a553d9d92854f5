"""``realtime_key create|list|revoke``: manage API keys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from ...declarations.registry import registry
from ...declarations.scopes import unknown_collections, unmatched_rooms
from ...models import READ_ONLY_PUBLISHES, ApiKey


class Command(BaseCommand):
    """Manages API keys.

    ``create`` writes the text of the key, and nothing else, to standard output:
    ``KEY=$(manage.py realtime_key create x)``.
    """

    help = "Create, list and revoke API keys."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add a subcommand for each action."""
        commands = parser.add_subparsers(dest="action", required=True)
        create = commands.add_parser("create", help="Create a key and print it.")
        create.add_argument("name", help="Purpose of the key.")
        create.add_argument("--project", default="default")
        create.add_argument(
            "--publish", action="store_true", help="Allow the key to publish over HTTP."
        )
        create.add_argument(
            "--collections",
            action="extend",
            nargs="*",
            metavar="NAME",
            help="Allow these collections only; without a name, none.",
        )
        create.add_argument(
            "--rooms",
            action="extend",
            nargs="*",
            metavar="PATTERN",
            help='Allow rooms with these names only, such as "lobby-*"; without a pattern, none.',
        )
        create.add_argument(
            "--read-only",
            action="store_true",
            help="Let the key read, but send nothing to other clients.",
        )
        create.add_argument("--user", help="Username of the user that the key acts for.")
        create.add_argument("--expires-in", type=float, metavar="DAYS")
        create.add_argument("--expires-at", metavar="ISO", help="Date and time, ISO 8601.")
        listing = commands.add_parser("list", help="List keys; secrets are not stored.")
        listing.add_argument("--project")
        revoke = commands.add_parser("revoke", help="Revoke a key.")
        revoke.add_argument("prefix", help="The part between crk_ and the second underscore.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the subcommand."""
        {"create": self._create, "list": self._list, "revoke": self._revoke}[options["action"]](
            options
        )

    def _create(self, options: dict[str, Any]) -> None:
        user = None
        if options["user"]:
            users = get_user_model()
            user = users._default_manager.filter(**{users.USERNAME_FIELD: options["user"]}).first()
            if user is None:
                raise CommandError(f"There is no user {options['user']!r}.")
        if options["publish"] and options["read_only"]:
            raise CommandError(f"{READ_ONLY_PUBLISHES} Give either --publish or --read-only.")
        collections, rooms = options["collections"], options["rooms"]
        self._check_scope(collections or (), rooms or ())
        key, text = ApiKey.objects.create_key(
            options["name"],
            project=options["project"],
            can_publish=options["publish"],
            user=user,
            expires_at=_expiry(options),
            collections=collections,
            rooms=rooms,
            read_only=options["read_only"],
        )
        self.stderr.write(f"It may be used for: {key.scope}.")
        self.stderr.write(f"Key {key.name!r} of project {key.project!r}; it is not shown again:")
        self.stdout.write(text)

    def _check_scope(self, collections: Sequence[str], rooms: Sequence[str]) -> None:
        """Raise ``CommandError`` for unknown collections, and warn of patterns without rooms."""
        unknown = unknown_collections(collections)
        if unknown:
            known = ", ".join(sorted(collection.name for collection in registry))
            raise CommandError(f"There are no collections {unknown}. Known are: {known}.")
        if not all(pattern.strip() for pattern in rooms):
            raise CommandError("A pattern of rooms must not be empty.")
        unmatched = unmatched_rooms(rooms)
        if unmatched:
            self.stderr.write(f"Warning: no declared room has a name that {unmatched} match.")

    def _list(self, options: dict[str, Any]) -> None:
        keys = ApiKey.objects.select_related("user")
        if options["project"]:
            keys = keys.filter(project=options["project"])
        rows = [("PREFIX", "STATE", "PROJECT", "PUBLISH", "SCOPE", "LAST USED", "NAME")]
        for key in keys:
            used = key.last_used_at.isoformat(timespec="minutes") if key.last_used_at else "never"
            publish = "yes" if key.can_publish else "no"
            scope = str(key.scope)
            rows.append((key.prefix, key.state, key.project, publish, scope, used, key.name))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            self.stdout.write("  ".join(cells).rstrip())

    def _revoke(self, options: dict[str, Any]) -> None:
        prefix = options["prefix"].removeprefix("crk_").partition("_")[0]
        key = ApiKey.objects.filter(prefix=prefix).first()
        if key is None:
            raise CommandError(f"There is no key with prefix {prefix!r}.")
        if key.revoked_at is not None:
            raise CommandError(f"Key {prefix!r} was revoked before.")
        key.revoke()
        self.stdout.write(f"Key {key.name!r} is revoked.")


def _expiry(options: dict[str, Any]) -> datetime | None:
    """Return the time at which a new key expires, or None. Raises ``CommandError``."""
    if options["expires_in"] is not None and options["expires_at"]:
        raise CommandError("Give either --expires-in or --expires-at.")
    if options["expires_in"] is not None:
        if options["expires_in"] <= 0:
            raise CommandError("--expires-in must be above zero.")
        return timezone.now() + timedelta(days=options["expires_in"])
    if not options["expires_at"]:
        return None
    try:
        at = parse_datetime(options["expires_at"])
    except ValueError:
        at = None
    if at is None:
        raise CommandError("--expires-at must be a date and time such as 2030-01-31T12:00Z.")
    at = timezone.make_aware(at) if timezone.is_naive(at) else at
    if at <= timezone.now():
        raise CommandError("--expires-at is in the past.")
    return at

"""``realtime_kick``: close live connections, in every process."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...api import disconnect
from ...models import ApiKey
from ...pubsub.broker import broker
from ...pubsub.layer import channel_layer, is_in_memory


class Command(BaseCommand):
    """Closes connections. Clients may reconnect as long as their credential is valid."""

    help = "Close the live connections of a user or of an API key."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options that select connections."""
        target = parser.add_mutually_exclusive_group(required=True)
        target.add_argument("--user", help="A username, a user's id, or jwt:SUBJECT.")
        target.add_argument("--key", metavar="PREFIX", help="An API key's prefix.")
        parser.add_argument("--project", help="Only connections of this project.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Publish the request to every process."""
        layer = channel_layer()
        if layer is None or is_in_memory(layer):
            raise CommandError(
                "The channel layer does not reach other processes. Use channels_redis, or "
                "deactivate the user or revoke the key: servers notice that by themselves."
            )
        if options["key"]:
            prefix = options["key"].removeprefix("crk_").partition("_")[0]
            if not ApiKey.objects.filter(prefix=prefix).exists():
                raise CommandError(f"There is no key with prefix {prefix!r}.")
            disconnect(key=prefix, project=options["project"])
        else:
            disconnect(user=_find_user(options["user"]), project=options["project"])
        if not broker.flush():
            raise CommandError("The channel layer does not answer.")
        self.stdout.write("The request was published.")


def _find_user(text: str) -> Any:
    """Return a user by username, or the text itself, which may be a user's id or a subject."""
    users = get_user_model()
    user = users._default_manager.filter(**{users.USERNAME_FIELD: text}).first()
    return text if user is None else user

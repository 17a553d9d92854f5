"""``realtime_explain``: why a client gets a document or an event, or why not."""

from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...identity import Identity
from ...inspection.credentials import api_key_identity, user_identity, visitor_identity
from ...inspection.explain import Explanation, Request, explain
from ...inspection.findings import Finding


class Command(BaseCommand):
    """Goes through the steps of a subscription, and prints which of them decided."""

    help = (
        "Explain why a user, API key or visitor gets a document of a collection, or why not. "
        "Exits with 0 if it would be delivered, otherwise with 1."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the client, the subscription, and the document or event."""
        client = parser.add_mutually_exclusive_group(required=True)
        client.add_argument("--user", help="A username, or a user's id.")
        client.add_argument("--key", metavar="PREFIX", help="An API key's prefix.")
        client.add_argument("--anonymous", action="store_true", help="A visitor.")
        parser.add_argument("--project", help="The project of a user or visitor.")
        parser.add_argument("--collection", required=True, help="The collection's name.")
        parser.add_argument("--document", metavar="ID", help="The document's id.")
        parser.add_argument(
            "--event", help='The number or cursor of a logged event, or "last" of the document.'
        )
        parser.add_argument(
            "--filter",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="A condition of the client's filter, or the whole filter as JSON.",
        )
        parser.add_argument("--fields", nargs="*", metavar="NAME")
        parser.add_argument("--events", nargs="*", choices=["created", "updated", "deleted"])
        parser.add_argument("--changed", nargs="*", metavar="NAME")
        parser.add_argument("--transitions", action="store_true")
        parser.add_argument("--json", action="store_true", help="Print JSON.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the explanation, and exit with 1 if nothing is delivered."""
        if options["document"] is None and options["event"] in (None, "last"):
            raise CommandError("Name a document, or an event by its number or cursor.")
        identity, credential = _find_identity(options)
        explanation = Explanation(None, ())
        if identity is not None:
            request = Request(
                options["collection"],
                _parse_filters(options["filter"]),
                options["fields"],
                options["events"],
                options["changed"],
                options["transitions"],
            )
            explanation = explain(identity, request, options["document"], options["event"])
        findings = (_named("credential", credential), *explanation.findings)
        explanation = Explanation(explanation.event, findings)
        if options["json"]:
            self.stdout.write(json.dumps(explanation.as_json(), indent=2, ensure_ascii=False))
        else:
            for finding in explanation.findings:
                for line in finding.lines():
                    self.stdout.write(line)
            verdict = "Delivered" if explanation.is_delivered else "Not delivered"
            self.stdout.write(f"\n{verdict}: {explanation.reason.rstrip('.')}.")
        if not explanation.is_delivered:
            sys.exit(1)


def _find_identity(options: dict[str, Any]) -> tuple[Identity | None, Finding]:
    if options["key"] is not None:
        return api_key_identity(options["key"])
    if options["user"] is not None:
        return user_identity(options["user"], options["project"])
    return visitor_identity(options["project"])


def _named(subject: str, finding: Finding) -> Finding:
    return Finding(finding.passes, f"{subject}: {finding.text}", finding.parts)


def _parse_filters(texts: list[str]) -> dict[str, Any]:
    """Return the filter that options give. Raises ``CommandError``."""
    filters: dict[str, Any] = {}
    for text in texts:
        if text.lstrip().startswith("{"):
            try:
                filters |= json.loads(text)
            except ValueError as error:
                raise CommandError(f"The filter is not valid JSON: {error}") from error
            continue
        key, separator, value = text.partition("=")
        if not separator:
            raise CommandError(f"Write KEY=VALUE instead of {text!r}.")
        if key in filters:
            raise CommandError(f"The key {key!r} is given twice.")
        filters[key] = _json_or_text(value)
    return filters


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text

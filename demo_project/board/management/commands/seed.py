import random
from io import StringIO
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandParser
from django.db.transaction import atomic

from demo_project.board.auto_moves import TITLE
from demo_project.board.models import Membership, Parcel, Post, Task, Team
from demo_project.board.users import COURIERS, DISPATCHER, NAMES, SERVER, SQL, get_named
from django_cocobase_realtime import capture_disabled

LOW, NORMAL, HIGH = Task.LOW, Task.NORMAL, Task.HIGH
TASKS = (
    (TITLE, "todo", NORMAL, SERVER),
    ("Check the links in the docs", "todo", NORMAL, NAMES[0]),
    ("Write the release notes", "todo", HIGH, "Wren"),
    ("Review the search page", "doing", NORMAL, NAMES[0]),
    ("Fix the login form", "doing", HIGH, "Lynx"),
    ("Update the price list", "done", LOW, "Badger"),
)
# words of the titles of many cards
VERBS = ("Check", "Review", "Fix", "Update", "Translate", "Test", "Simplify", "Document")
THINGS = ("search page", "login form", "price list", "newsletter", "invoice", "archive")
# column -> its share of many cards
SHARES = {"todo": 5, "doing": 2, "done": 3}
POSTS = (
    ("The office is closed on Friday", "published"),
    ("Version 2.4 is released", "published"),
    ("Notes for the next meeting", "draft"),
)
TEAMS = ("North", "South")
PARCELS = (
    ("Box of books", "North", "ada"),
    ("Camera lens", "South", "ada"),
    ("Desk lamp", "North", "ben"),
    ("Garden chair", "South", None),
)


class Command(BaseCommand):
    help = "Create the demo's users and rows; if they exist, change nothing."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--cards", type=int, default=0, help="Add cards until the board has this many."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        users = get_user_model().objects
        if not users.filter(username="admin").exists():
            users.create_superuser("admin", password="admin")
        for name in (*COURIERS, DISPATCHER, SERVER, SQL):
            get_named(name)
        if not Team.objects.exists():
            dispatcher = users.get(username=DISPATCHER)
            for name in TEAMS:
                team = Team.objects.create(name=name)
                Membership.objects.create(team=team, user=dispatcher)
            Parcel.objects.update(team=team)  # those of the demo before it had teams
        if not Task.objects.exists():
            for title, column, priority, assignee in TASKS:
                Task.objects.create(
                    title=title, column=column, priority=priority, assignee=get_named(assignee)
                )
        if not Post.objects.exists():
            for title, status in POSTS:
                Post.objects.create(title=title, status=status)
        if not Parcel.objects.exists():
            for title, team_name, owner in PARCELS:
                Parcel.objects.create(
                    title=title,
                    team=Team.objects.filter(name=team_name).first(),
                    owner=owner and users.get(username=owner),
                )
        missing = options["cards"] - Task.objects.count()
        if missing > 0:
            import_cards(missing)
        self.stdout.write("The demo has its data. Admin: name admin, password admin.")


def import_cards(count: int) -> None:
    """Add this many cards without an event for each: clients load their lists again instead."""
    with atomic(), capture_disabled():
        call_command("realtime_triggers", "remove", "tasks", stdout=StringIO())
        Task.objects.bulk_create(make_cards(count), batch_size=10000)
        call_command("realtime_triggers", "install", "tasks", stdout=StringIO())
        call_command("realtime_rotate_epoch", "tasks", stdout=StringIO())


def make_cards(count: int) -> list[Task]:
    """Return new cards, the same each time."""
    choices = random.Random(0).choices
    assignees = [get_named(name) for name in ("Wren", "Lynx", "Badger")]
    values = zip(
        choices(VERBS, k=count),
        choices(THINGS, k=count),
        choices(list(SHARES), list(SHARES.values()), k=count),
        # few are high, so that new cards, which are normal, are among the first
        choices((LOW, NORMAL, HIGH), (3000, 7000, 1), k=count),
        choices(assignees, k=count),
        strict=True,
    )
    return [
        Task(
            title=f"{verb} the {thing} {number}",
            column=column,
            priority=priority,
            assignee=assignee,
        )
        for number, (verb, thing, column, priority, assignee) in enumerate(values, 1)
    ]

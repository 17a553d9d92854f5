from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand

from demo_project.board.auto_moves import TITLE
from demo_project.board.models import Membership, Parcel, Post, Task, Team
from demo_project.board.users import COURIERS, DISPATCHER, NAMES, SERVER, SQL, get_named

TASKS = (
    (TITLE, "todo", SERVER),
    ("Check the links in the docs", "todo", NAMES[0]),
    ("Write the release notes", "todo", "Wren"),
    ("Review the search page", "doing", NAMES[0]),
    ("Fix the login form", "doing", "Lynx"),
    ("Update the price list", "done", "Badger"),
)
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
            for title, column, assignee in TASKS:
                Task.objects.create(title=title, column=column, assignee=get_named(assignee))
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
        self.stdout.write("The demo has its data. Admin: name admin, password admin.")

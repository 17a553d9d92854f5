from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.management.base import BaseCommand

from demo_project.board.models import Parcel, Post, Task
from demo_project.board.users import COURIERS, DISPATCHER, DISPATCHERS

TASKS = (
    ("Draw the map of the harbour", "todo", "Heron"),
    ("Count the gulls before noon", "todo", "Wren"),
    ("Mend the blue net", "doing", "Otter"),
    ("Write to the lighthouse", "doing", "Lynx"),
    ("Paint the small boat", "done", "Badger"),
)
POSTS = (
    ("The ferry runs again", "published"),
    ("Fog expected on Thursday", "published"),
    ("Notes for the next meeting", "draft"),
)
PARCELS = (
    ("A barrel of tar", "ada"),
    ("Lamp oil for the lighthouse", "ada"),
    ("Charts of the north shore", "ben"),
    ("A box of oranges", None),
)


class Command(BaseCommand):
    help = "Fill an empty demo; run again, it changes nothing."

    def handle(self, *args: Any, **options: Any) -> None:
        users = get_user_model().objects
        if not users.filter(username="admin").exists():
            users.create_superuser("admin", password="admin")
        for name in (*COURIERS, DISPATCHER):
            if not users.filter(username=name).exists():
                users.create_user(name)
        dispatchers, _ = Group.objects.get_or_create(name=DISPATCHERS)
        dispatchers.user_set.add(users.get(username=DISPATCHER))
        if not Task.objects.exists():
            for title, column, assignee in TASKS:
                Task.objects.create(title=title, column=column, assignee=assignee)
        if not Post.objects.exists():
            for title, status in POSTS:
                Post.objects.create(title=title, status=status)
        if not Parcel.objects.exists():
            for title, owner in PARCELS:
                Parcel.objects.create(title=title, owner=owner and users.get(username=owner))
        self.stdout.write("The demo is seeded; the admin's name and password are admin.")

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand

from demo_project.board.models import Post, Task

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


class Command(BaseCommand):
    help = "Fill an empty demo; run again, it changes nothing."

    def handle(self, *args: Any, **options: Any) -> None:
        users = get_user_model().objects
        if not users.filter(username="admin").exists():
            users.create_superuser("admin", password="admin")
        if not Task.objects.exists():
            for title, column, assignee in TASKS:
                Task.objects.create(title=title, column=column, assignee=assignee)
        if not Post.objects.exists():
            for title, status in POSTS:
                Post.objects.create(title=title, status=status)
        self.stdout.write("The demo is seeded; the admin's name and password are admin.")

"""What the page shows live."""

from django.db import models

from django_cocobase_realtime.managers import RealtimeManager


class Task(models.Model):
    """A card on the board."""

    COLUMNS = (("todo", "To do"), ("doing", "Doing"), ("done", "Done"))

    title = models.CharField(max_length=120)
    column = models.CharField(max_length=10, choices=COLUMNS, default="todo")
    assignee = models.CharField(max_length=40, default="Nobody")
    moved_at = models.DateTimeField(auto_now=True)

    objects = RealtimeManager()

    class Meta:
        ordering = ("pk",)

    def __str__(self) -> str:
        return self.title


class Post(models.Model):
    """An entry of the news list; visitors see published ones, or all."""

    STATUSES = (("draft", "Draft"), ("published", "Published"))

    title = models.CharField(max_length=120)
    status = models.CharField(max_length=10, choices=STATUSES, default="draft")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = RealtimeManager()

    class Meta:
        ordering = ("-pk",)

    def __str__(self) -> str:
        return self.title

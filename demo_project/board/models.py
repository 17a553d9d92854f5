"""The models whose rows the pages show live."""

from django.conf import settings
from django.db import models

from django_cocobase_realtime.managers import RealtimeManager


class Task(models.Model):
    """A card on the board."""

    COLUMNS = (("todo", "To do"), ("doing", "Doing"), ("done", "Done"))
    LOW, NORMAL, HIGH = range(3)
    PRIORITIES = ((LOW, "low"), (NORMAL, "normal"), (HIGH, "high"))

    title = models.CharField(max_length=120)
    column = models.CharField(max_length=10, choices=COLUMNS, default="todo")
    # rows that SQL inserts without a priority get the database's default
    priority = models.SmallIntegerField(choices=PRIORITIES, default=NORMAL, db_default=NORMAL)
    assignee = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True
    )
    moved_at = models.DateTimeField(auto_now=True)

    objects = RealtimeManager()

    class Meta:
        ordering = ("pk",)
        # the order of a column, in which pages show the first cards
        indexes = (
            models.Index(
                fields=("column", "-priority", "-moved_at", "id"), name="cards_of_a_column"
            ),
        )

    def __str__(self) -> str:
        return self.title


class Post(models.Model):
    """A post; the first page shows the published ones."""

    STATUSES = (("draft", "Draft"), ("published", "Published"))

    title = models.CharField(max_length=120)
    status = models.CharField(max_length=10, choices=STATUSES, default="draft")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = RealtimeManager()

    class Meta:
        ordering = ("-pk",)

    def __str__(self) -> str:
        return self.title


class Team(models.Model):
    """A team, whose members see its parcels."""

    name = models.CharField(max_length=40, unique=True)

    objects = RealtimeManager()

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """A user in a team."""

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships"
    )

    objects = RealtimeManager()

    class Meta:
        ordering = ("team", "user")
        constraints = (
            models.UniqueConstraint(fields=("team", "user"), name="one_membership_per_team"),
        )

    def __str__(self) -> str:
        return f"{self.user} in {self.team}"


class Parcel(models.Model):
    """A parcel, visible to its owner and to the members of its team (see ``realtime.py``)."""

    title = models.CharField(max_length=120)
    team = models.ForeignKey(Team, on_delete=models.SET_NULL, null=True, related_name="parcels")
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True
    )

    objects = RealtimeManager()

    class Meta:
        ordering = ("pk",)

    def __str__(self) -> str:
        return self.title


class Counter(models.Model):
    """A number. Each change adds one, so that a client can detect a missed change."""

    name = models.CharField(max_length=40, unique=True)
    number = models.PositiveIntegerField(default=0)

    objects = RealtimeManager()

    def __str__(self) -> str:
        return f"{self.name} {self.number}"

"""Models for tests of relations: tickets of the projects of organizations with members."""

import uuid

from django.conf import settings
from django.contrib.contenttypes.fields import GenericForeignKey, GenericRelation
from django.contrib.contenttypes.models import ContentType
from django.db import models


class Organization(models.Model):
    name = models.CharField(max_length=50)
    slug = models.SlugField(unique=True, null=True)
    flags = models.JSONField(default=dict)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="owned"
    )


class Membership(models.Model):
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="memberships")
    organization = models.ForeignKey(Organization, models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, default="member")
    active = models.BooleanField(default=True)


class ProxyMembership(Membership):
    class Meta:
        proxy = True


class Team(models.Model):
    """A team, which has its members by a table of its own."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=50)
    members = models.ManyToManyField(settings.AUTH_USER_MODEL, through="TeamMember")


class TeamMember(models.Model):
    team = models.ForeignKey(Team, models.CASCADE)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    level = models.IntegerField(default=0)


class Label(models.Model):
    name = models.CharField(max_length=50)
    parents = models.ManyToManyField("self", symmetrical=False)


class Project(models.Model):
    name = models.CharField(max_length=50)
    public = models.BooleanField(default=False)
    organization = models.ForeignKey(
        Organization, models.CASCADE, null=True, related_name="projects"
    )
    slug = models.ForeignKey(
        Organization,
        models.SET_NULL,
        null=True,
        to_field="slug",
        db_constraint=False,  # slugs change
        related_name="projects_by_slug",
        db_column="organization_slug",
    )
    parent = models.ForeignKey("self", models.SET_NULL, null=True, related_name="children")
    team = models.ForeignKey(Team, models.SET_NULL, null=True, related_name="projects")
    labels = models.ManyToManyField(Label)
    members = models.ManyToManyField(settings.AUTH_USER_MODEL, related_name="projects")
    notes = GenericRelation("Note")


class Note(models.Model):
    content_type = models.ForeignKey(ContentType, models.CASCADE)
    object_id = models.BigIntegerField()
    subject = GenericForeignKey()
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)


class Ticket(models.Model):
    title = models.CharField(max_length=50, default="")
    status = models.CharField(max_length=10, default="open")
    project = models.ForeignKey(Project, models.CASCADE, null=True)
    organization = models.ForeignKey(
        Organization,
        models.SET_NULL,
        null=True,
        to_field="slug",
        db_constraint=False,
        related_name="+",
    )
    team = models.ForeignKey(Team, models.SET_NULL, null=True, related_name="+")
    assignee = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True)


class Attachment(models.Model):
    file = models.FileField(blank=True)
    ticket = models.ForeignKey(Ticket, models.CASCADE, related_name="attachments")


class Bug(Ticket):
    severity = models.IntegerField(default=0)


VENDOR = "postgresql" if "postgresql" in settings.DATABASES["default"]["ENGINE"] else "sqlite"
# a collation that is not the default; that of SQLite ignores case
COLLATION = "C" if VENDOR == "postgresql" else "NOCASE"


class Folded(models.Model):
    """A table with text that is compared by a collation of its own."""

    name = models.CharField(max_length=50, db_collation=COLLATION)
    project = models.ForeignKey(Project, models.CASCADE)

    class Meta:
        required_db_vendor = VENDOR


class Unmanaged(models.Model):
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.DO_NOTHING)

    class Meta:
        managed = False
        db_table = "relations_unmanaged"

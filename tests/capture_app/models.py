"""Models for tests of capture: relations and inheritance of every kind. They have no migrations."""

from django.db import models

from tests.app.fields import WrapperAutoField, WrapperField


class Parent(models.Model):
    n = models.IntegerField(default=0)
    slug = models.CharField(max_length=50, null=True, unique=True)


class Child(models.Model):
    parent = models.ForeignKey(Parent, models.CASCADE)
    text = models.CharField(max_length=50)


class Page(models.Model):
    html = models.TextField(blank=True)
    slug = models.CharField(max_length=50, blank=True)
    status = models.CharField(max_length=20, default="draft")
    a = models.IntegerField(default=0)
    b = models.IntegerField(default=0)


class Team(models.Model):
    name = models.CharField(max_length=50, unique=True)


def default_team():
    return Team.objects.get_or_create(name="default")[0].pk


class Task(models.Model):
    """The parent table of `Bug`."""

    title = models.CharField(max_length=50)
    team = models.ForeignKey(Team, models.SET_NULL, null=True)
    backup = models.ForeignKey(Team, models.SET_DEFAULT, null=True, default=None, related_name="+")


class Bug(Task):
    severity = models.IntegerField(default=0)


class UrgentBug(Bug):
    deadline = models.DateField(null=True)


class Ticket(models.Model):
    title = models.CharField(max_length=50)
    team = models.ForeignKey(Team, models.SET_NULL, null=True)


class Reply(models.Model):
    ticket = models.ForeignKey(Ticket, models.CASCADE)
    text = models.CharField(max_length=50, blank=True)


class Readable(models.Model):
    """One of the two parents of `Book`."""

    readable_id = models.AutoField(primary_key=True)
    pages = models.IntegerField(default=0)


class Sellable(models.Model):
    """The other parent of `Book`."""

    sellable_id = models.AutoField(primary_key=True)
    price = models.IntegerField(default=0)


class Book(Readable, Sellable):
    title = models.CharField(max_length=50)


class Magazine(Readable):
    """Another child of a parent of `Book`."""

    issue = models.IntegerField(default=1)


class Numbered(models.Model):
    """Has the names that Django gives to expressions without a name."""

    f1 = models.IntegerField(unique=True)
    f2 = models.IntegerField()


class Account(models.Model):
    name = models.CharField(max_length=50)


class Customer(Account):
    """A child with a primary key of its own."""

    number = models.CharField(max_length=20, primary_key=True)
    account = models.OneToOneField(Account, models.CASCADE, parent_link=True)
    vip = models.BooleanField(default=False)


class Person(models.Model):
    name = models.CharField(max_length=50, unique=True)
    friends = models.ManyToManyField("self")
    follows = models.ManyToManyField("self", symmetrical=False, related_name="followers")


class Group(models.Model):
    name = models.CharField(max_length=50)
    members = models.ManyToManyField(Person, through="Membership", related_name="groups")
    # refers to another unique column than the primary key
    named = models.ManyToManyField(Person, through="NamedMembership", related_name="+")


class Membership(models.Model):
    group = models.ForeignKey(Group, models.CASCADE)
    person = models.ForeignKey(Person, models.CASCADE)
    role = models.CharField(max_length=20, default="member")


class NamedMembership(models.Model):
    group = models.ForeignKey(Group, models.CASCADE)
    person = models.ForeignKey(Person, models.CASCADE, to_field="name", db_column="person_name")


class Code(models.Model):
    """A primary key that is text, and a column that is not named like its field."""

    code = models.CharField(max_length=600, primary_key=True)
    label = models.CharField(max_length=50, db_column="lbl", blank=True)


class Stamp(models.Model):
    """A file, and times that ``pre_save`` sets."""

    upload = models.FileField(upload_to="stamps", blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    name = models.CharField(max_length=50)


class Ordered(models.Model):
    rank = models.IntegerField(default=0)
    name = models.CharField(max_length=50)

    class Meta:
        ordering = ["-rank"]


class Leadership(Membership):
    """A child of a through model."""

    since = models.IntegerField(default=0)


class Wrapped(models.Model):
    """A primary key whose values cannot be hashed."""

    id = WrapperField(primary_key=True, max_length=20)
    name = models.CharField(max_length=50, blank=True)
    labels = models.ManyToManyField(Team, through="WrappedLabel")


class WrappedLabel(models.Model):
    wrapped = models.ForeignKey(Wrapped, models.CASCADE)
    team = models.ForeignKey(Team, models.CASCADE)


class WrappedChild(Wrapped):
    n = models.IntegerField(default=0)


class WrappedNumber(models.Model):
    """A primary key whose values have no text."""

    id = WrapperAutoField(primary_key=True)
    name = models.CharField(max_length=50, blank=True)

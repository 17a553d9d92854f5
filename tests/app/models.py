"""Models of every kind that capture must handle."""

import uuid

from django.conf import settings
from django.db import models

from django_cocobase_realtime.managers import RealtimeManager

from .fields import EncryptedTextField, EnumField, PackedField, Status


class Author(models.Model):
    name = models.CharField(max_length=100)
    password = models.CharField(max_length=100, default="hunter2")


class Tag(models.Model):
    name = models.CharField(max_length=50)


class Post(models.Model):
    title = models.CharField(max_length=200)
    body = models.TextField(blank=True)
    status = models.CharField(
        max_length=20, default="draft", choices=[("draft", "Draft"), ("published", "Published")]
    )
    views = models.IntegerField(default=0)
    rating = models.DecimalField(max_digits=6, decimal_places=2, null=True)
    author = models.ForeignKey(Author, models.SET_NULL, null=True)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, null=True)
    project = models.CharField(max_length=50, default="default")
    meta = models.JSONField(default=dict)
    tags = models.ManyToManyField(Tag)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)


class PublishedPost(Post):
    class Meta:
        proxy = True


class Comment(models.Model):
    post = models.ForeignKey(Post, models.CASCADE)
    text = models.TextField()


class Message(models.Model):
    text = models.CharField(max_length=200)


class Place(models.Model):
    name = models.CharField(max_length=100)


class Restaurant(Place):
    stars = models.IntegerField(default=0)


class Diner(Restaurant):
    neon = models.BooleanField(default=False)


class UuidThing(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=50, unique=True)


class Item(models.Model):
    name = models.CharField(max_length=50, unique=True)
    size = models.IntegerField(default=0)

    objects = RealtimeManager()


class Everything(models.Model):
    big = models.BigIntegerField(default=0)
    binary = models.BinaryField(default=b"")
    boolean = models.BooleanField(null=True)
    char = models.CharField(max_length=50, choices=[("a", "A"), ("b", "B")], default="a")
    date = models.DateField(null=True)
    moment = models.DateTimeField(null=True)
    decimal = models.DecimalField(max_digits=20, decimal_places=4, null=True)
    duration = models.DurationField(null=True)
    email = models.EmailField(blank=True)
    file = models.FileField(null=True)
    path = models.FilePathField(path=".", null=True)
    float = models.FloatField(null=True)
    ip = models.GenericIPAddressField(null=True)
    integer = models.IntegerField(null=True)
    json = models.JSONField(null=True)
    positive = models.PositiveBigIntegerField(null=True)
    slug = models.SlugField(blank=True)
    small = models.SmallIntegerField(null=True)
    text = models.TextField(blank=True)
    time = models.TimeField(null=True)
    url = models.URLField(blank=True)
    uuid = models.UUIDField(null=True)
    double = models.GeneratedField(
        expression=models.F("integer") * 2,
        output_field=models.IntegerField(null=True),
        db_persist=True,
    )


class Patient(models.Model):
    name = models.CharField(max_length=50)
    diagnosis = EncryptedTextField(null=True)
    status = EnumField(default=Status.OPEN)
    packed = PackedField(null=True)


class Seat(models.Model):
    """A row with a key of two fields."""

    pk = models.CompositePrimaryKey("event", "number")
    event = models.CharField(max_length=50)
    number = models.IntegerField()
    holder = models.CharField(max_length=50, blank=True)


class LongKey(models.Model):
    path = models.TextField(primary_key=True)
    size = models.IntegerField(default=0)


class Task(models.Model):
    """A row of live queries, with values of all kinds that clients sort and aggregate by."""

    title = models.CharField(max_length=50, blank=True)
    state = models.CharField(max_length=10, default="open")
    priority = models.IntegerField(null=True)
    weight = models.IntegerField(default=0)
    hours = models.DecimalField(max_digits=10, decimal_places=2, null=True)
    size = models.BigIntegerField(default=0)
    score = models.FloatField(null=True)
    urgent = models.BooleanField(null=True)
    due = models.DateTimeField(null=True)
    project = models.ForeignKey("relations_app.Project", models.CASCADE, null=True)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True)
    deleted = models.BooleanField(default=False)

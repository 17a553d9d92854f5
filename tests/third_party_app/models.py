"""Models that use third-party packages."""

from enum import Enum

from django.db import models
from django_choices_field import TextChoicesField
from django_enum import EnumField
from django_lifecycle import AFTER_CREATE, BEFORE_UPDATE, LifecycleModelMixin, hook
from djmoney.models.fields import MoneyField
from encrypted_fields.fields import EncryptedCharField, EncryptedIntegerField
from model_utils import FieldTracker
from model_utils.fields import MonitorField, StatusField
from model_utils.models import TimeStampedModel
from mptt.models import MPTTModel, TreeForeignKey
from phonenumber_field.modelfields import PhoneNumberField
from polymorphic.models import PolymorphicModel
from simple_history.models import HistoricalRecords
from taggit.managers import TaggableManager


class Size(Enum):
    SMALL = 1
    LARGE = 2


class Color(models.TextChoices):
    RED = "red"
    BLUE = "blue"


class Product(models.Model):
    """Fields with a Python type of their own."""

    price = MoneyField(max_digits=12, decimal_places=2, default_currency="EUR", null=True)
    phone = PhoneNumberField(blank=True)
    size = EnumField(Size, null=True)
    color = TextChoicesField(choices_enum=Color, default=Color.RED)
    note = EncryptedCharField(max_length=300, null=True)
    number = EncryptedIntegerField(null=True)


class Article(models.Model):
    title = models.CharField(max_length=50)
    tags = TaggableManager()


class Recipe(models.Model):
    name = models.CharField(max_length=50)
    tags = TaggableManager()


class Node(MPTTModel):
    name = models.CharField(max_length=50)
    parent = TreeForeignKey("self", models.CASCADE, null=True, related_name="children")


class Vehicle(PolymorphicModel):
    name = models.CharField(max_length=50)


class Car(Vehicle):
    doors = models.IntegerField(default=4)


class Translated(models.Model):
    title = models.CharField(max_length=50)


class Tracked(TimeStampedModel):
    STATUS = (("draft", "draft"), ("done", "done"))

    a = models.IntegerField(default=0)
    b = models.IntegerField(default=0)
    status = StatusField()
    moved_at = MonitorField(monitor="status")

    tracker = FieldTracker()


class Recorded(models.Model):
    name = models.CharField(max_length=50)
    history = HistoricalRecords()


class Hooked(LifecycleModelMixin, models.Model):
    name = models.CharField(max_length=50)
    upper = models.CharField(max_length=50, blank=True)
    changes = models.IntegerField(default=0)

    @hook(AFTER_CREATE)
    def set_upper(self):
        Hooked.objects.filter(pk=self.pk).update(upper=self.name.upper())

    @hook(BEFORE_UPDATE, when="name", has_changed=True)
    def count_changes(self):
        self.changes += 1

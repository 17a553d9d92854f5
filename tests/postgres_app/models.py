"""Models with the fields of ``django.contrib.postgres``. Tests create their tables."""

from django.contrib.postgres import fields
from django.db import models


class Arrays(models.Model):
    integers = fields.ArrayField(models.IntegerField(null=True), null=True)
    bigs = fields.ArrayField(models.BigIntegerField(), null=True)
    floats = fields.ArrayField(models.FloatField(), null=True)
    decimals = fields.ArrayField(models.DecimalField(max_digits=8, decimal_places=2), null=True)
    texts = fields.ArrayField(models.CharField(max_length=20), default=list)
    booleans = fields.ArrayField(models.BooleanField(null=True), null=True)
    dates = fields.ArrayField(models.DateField(), null=True)
    moments = fields.ArrayField(models.DateTimeField(), null=True)
    uuids = fields.ArrayField(models.UUIDField(), null=True)
    matrix = fields.ArrayField(fields.ArrayField(models.IntegerField(), size=2), null=True)
    decimal_matrix = fields.ArrayField(
        fields.ArrayField(models.DecimalField(max_digits=8, decimal_places=2)), null=True
    )

    class Meta:
        managed = False


class Ranges(models.Model):
    integers = fields.IntegerRangeField(null=True)
    bigs = fields.BigIntegerRangeField(null=True)
    decimals = fields.DecimalRangeField(null=True)
    dates = fields.DateRangeField(null=True)
    moments = fields.DateTimeRangeField(null=True)

    class Meta:
        managed = False


class Store(models.Model):
    pairs = fields.HStoreField(null=True)

    class Meta:
        managed = False

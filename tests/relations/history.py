"""Random writes to the tables of the tests of relations, and the rows that they change."""

import random
import uuid

from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.db import connection, models, transaction

from django_cocobase_realtime.relations import RowChange
from tests.relations_app.models import Organization, Project, Unmanaged

User = get_user_model()
USERS = (1, 2, 3)
MODELS = [
    model
    for model in apps.get_app_config("relations_app").get_models(include_auto_created=True)
    if model is not Unmanaged and not model._meta.proxy
]
MAX_ROWS = 7
_VALUES = {
    "name": ["x", "y", "red", "X"],
    "role": ["admin", "member"],
    "status": ["open", "done"],
    "level": [0, 1, 2],
    "severity": [0, 1],
    "flags": [{}, {"open": True}, {"admin": 1}, {"admin": 2}],
}


class History:
    """Random transactions. The writes of one seed are always the same."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        for number in USERS:
            User.objects.create(pk=number, username=f"user{number}")
        self._subjects = [
            ContentType.objects.get_for_model(model).pk for model in (Project, Organization)
        ]
        self._slugs = 0
        self._rows = read_rows()
        for _ in range(60):
            self.write()
        self.take_changes()

    def write(self):
        """Commit one transaction of up to three writes."""
        with transaction.atomic():
            for _ in range(self.random.choice([1, 1, 1, 2, 3])):
                self._write_row(self.random.choice([*MODELS, User]))

    def take_changes(self):
        """Return the changes since the last call."""
        before, self._rows = self._rows, read_rows()
        return [
            RowChange(label, key, before.get((label, key)), self._rows.get((label, key)))
            for label, key in before.keys() | self._rows.keys()
            if before.get((label, key)) != self._rows.get((label, key))
        ]

    def _write_row(self, model):
        keys = sorted(model.objects.values_list("pk", flat=True))
        if model is User:
            user = User.objects.get(pk=self.random.choice(USERS))
            user.is_active = self.random.random() < 0.5
            user.save()
        elif len(keys) < 2 or (len(keys) < MAX_ROWS and self.random.random() < 0.5):
            self._insert(model)
        elif self.random.random() < 0.6:
            self._update(model, self.random.choice(keys))
        else:
            model.objects.filter(pk=self.random.choice(keys)).delete()

    def _insert(self, model):
        fields = [f for f in model._meta.concrete_fields if not f.primary_key and f.name != "id"]
        values = {field.attname: self._value(field) for field in fields}
        if self._is_allowed(model, values, fields):
            if isinstance(model._meta.pk, models.UUIDField):
                values["pk"] = uuid.UUID(int=self.random.getrandbits(128))
            model.objects.create(**values)

    def _update(self, model, key):
        fields = [f for f in model._meta.concrete_fields if not f.primary_key and f.name != "id"]
        chosen = self.random.sample(fields, self.random.choice([1, 1, min(2, len(fields))]))
        values = {field.attname: self._value(field) for field in chosen}
        if model._meta.auto_created:
            row = model.objects.get(pk=key)
            values = {field.attname: getattr(row, field.attname) for field in fields} | values
        if self._is_allowed(model, values, chosen):
            model.objects.filter(pk=key).update(**values)

    def _is_allowed(self, model, values, fields):
        """Return whether the row can be stored: no null, and no pair twice."""
        if any(values[f.attname] is None and not f.null for f in fields):
            return False
        return not model._meta.auto_created or not model.objects.filter(**values).exists()

    def _value(self, field):
        if field.name == "content_type":
            return self.random.choice(self._subjects)
        if isinstance(field, models.ForeignKey):
            if field.null and self.random.random() < 0.25:
                return None
            name = field.target_field.attname
            values = field.related_model.objects.exclude(**{name: None})
            values = sorted(values.values_list(name, flat=True))
            return self.random.choice(values) if values else None
        if field.name == "object_id":
            return self.random.choice(
                [0, *Project.objects.order_by("pk").values_list("pk", flat=True)]
            )
        if isinstance(field, models.BooleanField):
            return self.random.random() < 0.5
        if field.name == "slug":
            self._slugs += 1
            return self.random.choice([None, f"slug{self._slugs}"])
        return self.random.choice(_VALUES.get(field.name, [field.get_default()]))


def read_rows():
    """Return all rows by (label, key), as images by attribute names."""
    rows = {}
    for model in [*MODELS, User]:
        fields = model._meta.local_concrete_fields
        columns = ", ".join(connection.ops.quote_name(field.column) for field in fields)
        with connection.cursor() as cursor:
            table = connection.ops.quote_name(model._meta.db_table)
            cursor.execute(f"SELECT {columns} FROM {table}")
            for values in cursor.fetchall():
                row = {
                    field.attname: _final(field).to_python(value)
                    for field, value in zip(fields, values, strict=True)
                }
                rows[model._meta.label, row[model._meta.pk.attname]] = row
    return rows


def _final(field):
    while isinstance(field, models.ForeignKey):
        field = field.target_field
    return field

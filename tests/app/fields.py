"""Fields that convert what the database returns, as those of third-party packages do."""

import base64
from enum import Enum

from django.db import models


class EncryptedTextField(models.TextField):
    """Store text in a form that a reader of the database cannot read at once."""

    def get_prep_value(self, value):
        if value is None:
            return None
        return "enc:" + base64.b64encode(value[::-1].encode()).decode()

    def from_db_value(self, value, expression, connection):
        if value is None:
            return None
        if not value.startswith("enc:"):
            raise ValueError("This is not encrypted.")
        return base64.b64decode(value.removeprefix("enc:")).decode()[::-1]


class Status(str, Enum):  # noqa: UP042 - the text of a member is not its value
    OPEN = "open"
    DONE = "done"


class EnumField(models.CharField):
    """Give members of an enumeration."""

    def __init__(self, enum=Status, **options):
        self.enum = enum
        super().__init__(**{"max_length": 20, **options})

    def from_db_value(self, value, expression, connection):
        return None if value is None else self.enum(value)

    def to_python(self, value):
        return None if value is None else self.enum(value)

    def get_prep_value(self, value):
        return None if value is None else self.enum(value).value


class PackedField(models.BinaryField):
    """Store text as bytes."""

    def get_prep_value(self, value):
        return value.encode() if isinstance(value, str) else value

    def from_db_value(self, value, expression, connection):
        return None if value is None else bytes(value).decode()

    def to_python(self, value):
        return value

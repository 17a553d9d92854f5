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


class Wrapper:
    """A value that can be compared, but not hashed."""

    def __init__(self, value):
        self.value = value

    def __str__(self):
        return self.value

    def __eq__(self, other):
        return self.value == (other.value if isinstance(other, Wrapper) else other)


class WrapperField(models.CharField):
    """Give wrapped text; `get_db_prep_value` alone converts it for the database."""

    def to_python(self, value):
        return value if isinstance(value, Wrapper) or not value else Wrapper(value)

    def from_db_value(self, value, expression, connection):
        return self.to_python(value)

    def get_db_prep_save(self, value, connection):
        return self.get_db_prep_value(value, connection)

    def get_db_prep_value(self, value, connection, prepared=False):
        return str(value) if isinstance(value, Wrapper) else value


class WrapperAutoField(models.BigAutoField):
    """Give wrapped numbers, whose text cannot be made."""

    def from_db_value(self, value, expression, connection):
        return None if value is None else Wrapper(value)

"""Conversion of field values to JSON, and of JSON back to instances.

Primary keys, foreign keys and decimals become strings, and so do integers that JavaScript cannot
represent. Datetimes become ISO 8601 in UTC with an offset, files become their names, and binary
data becomes base64.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from typing import Any

from django.core.exceptions import ValidationError
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.utils import timezone
from django.utils.duration import duration_iso_string

from ..events import Image
from ..filters.schema import in_utc

MAX_SAFE_INTEGER = 2**53 - 1  # JavaScript's Number.MAX_SAFE_INTEGER
# matches the names of fields that look secret
SECRET_LOOKING = re.compile(
    r"(?:^|_)(?:password|passwd|pwd|passphrase|secret|token|api_?key|private_?key|access_?key"
    r"|credentials?|otp|cvv|cvc|ssn|session_?key|salt)s?(?:_|$)"
)
# converts a value of a field to a JSON value
Encoder = Callable[[Any], Any]


def is_secret_looking(name: str) -> bool:
    """Return whether a field's name suggests that its value is secret, such as "api_key"."""
    return SECRET_LOOKING.search(name.lower()) is not None


def _integer(value: int) -> int | str:
    return value if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER else str(value)


def _float(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _datetime(value: datetime) -> str:
    if timezone.is_naive(value):
        value = timezone.make_aware(value)
    return in_utc(value).isoformat()


def _binary(value: Any) -> str:
    return base64.b64encode(bytes(value)).decode()


def _json(encoder: type[json.JSONEncoder]) -> Encoder:
    def encode(value: Any) -> Any:
        # encode and decode, to get what the database returns: string keys, and lists for tuples
        return json.loads(json.dumps(value, cls=encoder))

    return encode


def to_json_value(value: Any) -> Any:
    """Convert a value, which may contain dates, decimals and UUIDs, to JSON values.

    Raises ``TypeError`` for types that Django's JSON encoder does not support.
    """
    return json.loads(json.dumps(value, cls=DjangoJSONEncoder))


def _decimal(places: int) -> Encoder:
    def encode(value: Decimal) -> str:
        if value.is_finite():
            value = round(value, places)
        return format(value, "f")

    return encode


def _list(item: Encoder) -> Encoder:
    return lambda values: [None if value is None else item(value) for value in values]


def _encoder_for(field: models.Field[Any, Any]) -> Encoder:
    """Return the encoder for values that are not None and have the field's Python type."""
    match field:
        case models.BooleanField():
            return bool
        case models.IntegerField():
            return _integer
        case models.FloatField():
            return _float
        case models.DecimalField():
            return _decimal(field.decimal_places or 0)
        case models.DateTimeField():
            return _datetime
        case models.DateField():
            return date.isoformat
        case models.TimeField():
            return time.isoformat
        case models.DurationField():
            return _duration
        case models.BinaryField():
            return _binary
        case models.JSONField():
            return _json(field.encoder or DjangoJSONEncoder)
        case models.FileField() | models.UUIDField() | models.CharField() | models.TextField():
            return str
        case models.GenericIPAddressField() | models.FilePathField():
            return str
    base_field = getattr(field, "base_field", None)
    if isinstance(base_field, models.Field):  # an ArrayField of PostgreSQL
        return _list(field_encoder(base_field))
    output_field = getattr(field, "output_field", None)
    if isinstance(output_field, models.Field):  # a GeneratedField
        return field_encoder(output_field)
    return to_json_value


def _duration(value: timedelta) -> str:
    return duration_iso_string(value)


def field_encoder(field: models.Field[Any, Any]) -> Encoder:
    """Return the encoder for a field's values, as they are on an instance or in a query."""
    if field.remote_field is not None and isinstance(field, models.ForeignKey):
        encode_target = field_encoder(field.target_field)
        return lambda value: None if value is None else str(encode_target(value))
    encode_value = _encoder_for(field)
    if field.primary_key:
        encode_key = encode_value
        encode_value = lambda value: str(encode_key(value))  # noqa: E731
    to_python = field.to_python
    if isinstance(field, models.FileField | models.JSONField | models.BinaryField):
        return lambda value: None if value is None else encode_value(value)

    def encode(value: Any) -> Any:
        if value is None:
            return None
        try:
            value = to_python(value)
            return None if value is None else encode_value(value)
        except (ValidationError, TypeError, ValueError):
            return str(value)  # not valid for the field, although the database accepted it

    return encode


class RowCodec:
    """Converts rows of one model to images and back.

    An image contains the concrete fields of the model except those that look secret.
    """

    def __init__(self, model: type[models.Model], not_secret: Iterable[str] = ()) -> None:
        allowed = set(not_secret)
        self.model = model
        # fields of an image, by name
        self.fields: dict[str, models.Field[Any, Any]] = {
            field.name: field
            for field in model._meta.concrete_fields
            if field.name in allowed or not is_secret_looking(field.name)
        }
        # name, attname and encoder of each field
        self._encoders = [
            (name, field.attname, field_encoder(field)) for name, field in self.fields.items()
        ]
        # columns that must be read to make an image
        self.attnames = tuple(attname for _, attname, _ in self._encoders)
        # whether the database computes some of the fields
        self.generated = any(getattr(f, "generated", False) for f in self.fields.values())

    def image(self, values: Mapping[str, Any]) -> Image:
        """Return the image of a row, given as values by attname as by ``QuerySet.values()``."""
        return {name: encode(values[attname]) for name, attname, encode in self._encoders}

    def from_instance(self, instance: models.Model) -> Image | None:
        """Return the image of the row that an instance has just saved.

        Returns None if the instance does not have all values: if a field is deferred, generated
        by the database, or was set to an expression such as ``F("votes") + 1``.
        """
        if self.generated:
            return None
        values = instance.__dict__
        image = {}
        for name, attname, encode in self._encoders:
            if attname not in values:
                return None
            value = values[attname]
            if hasattr(value, "resolve_expression"):
                return None
            image[name] = encode(value)
        return image

    def from_update_fields(self, instance: models.Model, names: Iterable[str]) -> Image | None:
        """Return the part of the image that contains some fields, given by name or attname.

        Like `from_instance`, returns None if the instance does not have all of these values.
        """
        values = instance.__dict__
        image = {}
        requested = set(names)
        for name, attname, encode in self._encoders:
            if name in requested or attname in requested:
                value = values.get(attname, _MISSING)
                if value is _MISSING or hasattr(value, "resolve_expression"):
                    return None
                image[name] = encode(value)
        return image

    def to_instance(self, model: type[models.Model], image: Image, using: str) -> models.Model:
        """Return an instance of ``model`` with an image's values; other fields are deferred."""
        present = [(field, image[name]) for name, field in self.fields.items() if name in image]
        values = [value if value is None else field.to_python(value) for field, value in present]
        return model.from_db(using, [field.attname for field, _ in present], values)

    def document_id(self, value: Any) -> str:
        """Return the id of the document of a row, given the row's primary key."""
        return str(_key_encoder(self.model)(value))


_MISSING = object()


@cache
def _key_encoder(model: type[models.Model]) -> Encoder:
    return field_encoder(model._meta.pk)


def changed_fields(before: Image, after: Image) -> tuple[str, ...]:
    """Return the names of the fields whose values differ between two images."""
    return tuple(name for name, value in after.items() if before.get(name, _MISSING) != value)

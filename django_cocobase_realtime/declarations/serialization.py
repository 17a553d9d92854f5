"""Rows in wire form: how each kind of model field becomes JSON, and back from an instance.

Ids and foreign keys are strings, decimals strings, datetimes ISO 8601 in UTC with an offset,
files their name, integers that JavaScript would round strings, binary base64.
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

MAX_SAFE_INTEGER = 2**53 - 1
SECRET_LOOKING = re.compile(
    r"(?:^|_)(?:password|passwd|pwd|passphrase|secret|token|api_?key|private_?key|access_?key"
    r"|credentials?|otp|cvv|cvc|ssn|session_?key|salt)s?(?:_|$)"
)
Encoder = Callable[[Any], Any]


def is_secret_looking(name: str) -> bool:
    """Whether a field's name says that its value should not leave the server."""
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
        # through text: what the database would give back (string keys, lists for tuples)
        return json.loads(json.dumps(value, cls=encoder))

    return encode


def to_json_value(value: Any) -> Any:
    """What JSON makes of a value, dates, decimals and UUIDs included. Raises ``TypeError``."""
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
    """How a non-null value of the field, already of its Python type, becomes JSON."""
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
    base = getattr(field, "base_field", None)
    if isinstance(base, models.Field):  # arrays of the PostgreSQL extension
        return _list(field_encoder(base))
    output = getattr(field, "output_field", None)
    if isinstance(output, models.Field):  # generated fields
        return field_encoder(output)
    return to_json_value


def _duration(value: timedelta) -> str:
    return duration_iso_string(value)


def field_encoder(field: models.Field[Any, Any]) -> Encoder:
    """From a value of ``field``, as an instance or a query has it, to its wire form."""
    if field.remote_field is not None and isinstance(field, models.ForeignKey):
        target = field.target_field
        inner = field_encoder(target)
        return lambda value: None if value is None else str(inner(value))
    plain = _encoder_for(field)
    if field.primary_key:
        key = plain
        plain = lambda value: str(key(value))  # noqa: E731
    to_python = field.to_python
    if isinstance(field, models.FileField | models.JSONField | models.BinaryField):
        return lambda value: None if value is None else plain(value)

    def encode(value: Any) -> Any:
        if value is None:
            return None
        try:
            value = to_python(value)
            return None if value is None else plain(value)
        except (ValidationError, TypeError, ValueError):
            return str(value)  # what this field does not know as its own, the database took

    return encode


class RowCodec:
    """Images of one model: its concrete fields but secret-looking ones, encoders compiled."""

    def __init__(self, model: type[models.Model], not_secret: Iterable[str] = ()) -> None:
        allowed = set(not_secret)
        self.model = model
        self.fields: dict[str, models.Field[Any, Any]] = {
            field.name: field
            for field in model._meta.concrete_fields
            if field.name in allowed or not is_secret_looking(field.name)
        }
        self._encoders = [
            (name, field.attname, field_encoder(field)) for name, field in self.fields.items()
        ]
        self.attnames = tuple(attname for _, attname, _ in self._encoders)
        self.generated = any(getattr(f, "generated", False) for f in self.fields.values())

    def image(self, values: Mapping[str, Any]) -> Image:
        """From values by attname (a ``.values()`` row) to an image."""
        return {name: encode(values[attname]) for name, attname, encode in self._encoders}

    def from_instance(self, instance: models.Model) -> Image | None:
        """The image of what an instance just wrote; None where only the database knows it.

        That is so for deferred fields, expressions such as ``F()``, and generated fields.
        """
        if self.generated:
            return None
        held = instance.__dict__
        image = {}
        for name, attname, encode in self._encoders:
            if attname not in held:
                return None
            value = held[attname]
            if hasattr(value, "resolve_expression"):
                return None
            image[name] = encode(value)
        return image

    def from_update_fields(self, instance: models.Model, names: Iterable[str]) -> Image | None:
        """Like ``of_instance`` for some fields, by name or attname."""
        held = instance.__dict__
        image = {}
        wanted = set(names)
        for name, attname, encode in self._encoders:
            if name in wanted or attname in wanted:
                value = held.get(attname, _MISSING)
                if value is _MISSING or hasattr(value, "resolve_expression"):
                    return None
                image[name] = encode(value)
        return image

    def to_instance(self, model: type[models.Model], image: Image, using: str) -> models.Model:
        """A row as it was, as an instance of ``model``; what the image lacks is deferred."""
        held = [(field, image[name]) for name, field in self.fields.items() if name in image]
        values = [value if value is None else field.to_python(value) for field, value in held]
        return model.from_db(using, [field.attname for field, _ in held], values)

    def document_id(self, value: Any) -> str:
        """A primary key's value as a document id."""
        return str(_key_encoder(self.model)(value))


_MISSING = object()


@cache
def _key_encoder(model: type[models.Model]) -> Encoder:
    return field_encoder(model._meta.pk)


def changed_fields(before: Image, after: Image) -> tuple[str, ...]:
    """Names of the fields whose value differs."""
    return tuple(name for name, value in after.items() if before.get(name, _MISSING) != value)

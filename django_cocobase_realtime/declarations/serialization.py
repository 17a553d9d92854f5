"""Conversion of field values to JSON, and of JSON back to instances.

Primary keys, foreign keys and decimals become strings, and so do integers that JavaScript cannot
represent. Datetimes become ISO 8601 in UTC with an offset, files become their names, and binary
data becomes base64.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import cache
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.core.serializers.json import DjangoJSONEncoder
from django.db import connections, models
from django.db.models import ExpressionWrapper
from django.utils import timezone
from django.utils.duration import duration_iso_string

from ..events import Image
from ..filters.schema import in_utc
from ..utils.json_text import round_trip
from .image_fields import fields_not_secret, key_names
from .instance_values import field_value

MAX_SAFE_INTEGER = 2**53 - 1  # JavaScript's Number.MAX_SAFE_INTEGER
# converts a value of a field to a JSON value
Encoder = Callable[[Any], Any]


def _integer(value: int) -> int | str:
    return value if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER else str(value)


def _float(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _datetime(value: datetime) -> str:
    if timezone.is_naive(value):
        value = timezone.make_aware(value)
    return in_utc(value).isoformat()


def _binary(value: Any) -> str:
    # not bytes(value), which makes zeros of a number
    return base64.b64encode(memoryview(value)).decode()


def _json(encoder: type[json.JSONEncoder]) -> Encoder:
    return lambda value: round_trip(value, encoder)


def to_json_value(value: Any) -> Any:
    """Convert a value, which may contain dates, decimals and UUIDs, to JSON values.

    A member of an enumeration becomes its value. Raises ``TypeError`` for anything else that
    Django's JSON encoder does not know.
    """
    return json.loads(json.dumps(value, cls=_JsonEncoder))


class _JsonEncoder(DjangoJSONEncoder):
    def default(self, o: Any) -> Any:
        return o.value if isinstance(o, Enum) else super().default(o)


def _without_enum(value: Any) -> Any:
    """Return the value of a member of an enumeration, and any other value as it is.

    The text of a member is its name, even if the member is a string itself.
    """
    return value.value if isinstance(value, Enum) else value


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
        return lambda value: None if value is None else str(encode_target(_without_enum(value)))
    encode_value = _encoder_for(field)
    if field.primary_key:
        encode_key = encode_value
        encode_value = lambda value: str(encode_key(value))  # noqa: E731
    to_python: Callable[[Any], Any] = field.to_python
    if isinstance(field, models.FileField | models.JSONField | models.BinaryField):
        to_python = lambda value: value  # noqa: E731

    def encode(value: Any) -> Any:
        if value is None:
            return None
        try:
            value = _without_enum(to_python(value))
            return None if value is None else encode_value(value)
        except (ValidationError, TypeError, ValueError, ArithmeticError, RecursionError):
            # not a valid value of the field, yet the database accepted it
            return _text(_without_enum(value))

    return encode


def _text(value: Any) -> str:
    """Return a value as text; of an object of the project that has none, its attributes."""
    with suppress(Exception):
        return str(value)
    return repr(getattr(value, "__dict__", type(value)))


def has_custom_conversion(field: models.Field[Any, Any]) -> bool:
    """Return whether a field outside of Django converts what the database returns."""
    while isinstance(field, models.ForeignKey):
        field = field.target_field
    convert = getattr(type(field), "from_db_value", None)
    return convert is not None and not str(convert.__module__).startswith("django.")


def raw_column(expression: Any, is_raw: bool) -> Any:
    """Return an expression for the column itself, without the conversion of its field."""
    return ExpressionWrapper(expression, output_field=models.Field()) if is_raw else expression


def encode_raw(value: Any) -> Any:
    """Return a JSON value for what a database driver returned; `decode_raw` restores it."""
    match value:
        case None | bool() | str():
            return value
        case int():
            return value
        case float() if math.isfinite(value):
            return value
        case float():
            return {"float": str(value)}
        case bytes() | bytearray() | memoryview():
            return {"bytes": _binary(value)}
        case Decimal():
            return {"decimal": str(value)}
        case datetime():
            return {"datetime": value.isoformat()}
        case date():
            return {"date": value.isoformat()}
        case time():
            return {"time": value.isoformat()}
        case timedelta():
            microseconds = value // timedelta(microseconds=1)
            return {"timedelta": microseconds}
        case UUID():
            return {"uuid": str(value)}
    if hasattr(value, "obj"):  # psycopg's wrapper of a parameter: bytes, or JSON
        is_binary = isinstance(value.obj, bytes | bytearray | memoryview)
        return encode_raw(value.obj) if is_binary else json.dumps(to_json_value(value.obj))
    return {"json": to_json_value(value)}


_DECODE_RAW: dict[str, Callable[[Any], Any]] = {
    "float": float,
    "bytes": base64.b64decode,
    "decimal": Decimal,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": lambda microseconds: timedelta(microseconds=microseconds),
    "uuid": UUID,
    "json": lambda value: value,
}


def decode_raw(value: Any) -> Any:
    """Return what a database driver returned, from `encode_raw`'s JSON value."""
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    return _DECODE_RAW[kind](inner)


class RowCodec:
    """Converts rows of one model to images and back.

    An image has the fields ``names`` of the model, by default all concrete ones that do not look
    secret, and always the primary key. Fields with a conversion of their own (`raw_names`) are
    kept as the database holds them, so that what a project encrypts stays encrypted; `decode`
    converts them.
    """

    def __init__(
        self,
        model: type[models.Model],
        not_secret: Iterable[str] = (),
        names: Iterable[str] | None = None,
    ) -> None:
        self.model = model
        self.key_names = key_names(model)
        wanted = None if names is None else {*names, *self.key_names}
        # fields of an image, by name
        self.fields: dict[str, models.Field[Any, Any]] = {
            name: field
            for name, field in fields_not_secret(model, not_secret).items()
            if wanted is None or name in wanted
        }
        # not the key: it is in the id of the document, which clients are sent in any case
        self.raw_names = frozenset(
            name
            for name, field in self.fields.items()
            if field not in model._meta.pk_fields and has_custom_conversion(field)
        )
        # name, attname and encoder of each field
        self._encoders: list[tuple[str, str, Encoder]] = [
            (
                name,
                str(field.attname),
                encode_raw if name in self.raw_names else field_encoder(field),
            )
            for name, field in self.fields.items()
        ]
        self._raw_encoders = {name: field_encoder(self.fields[name]) for name in self.raw_names}
        self._names = tuple(self.fields)
        self.attnames = tuple(attname for _, attname, _ in self._encoders)

    def image(self, values: Mapping[str, Any]) -> Image:
        """Return the image of a row's values by attname."""
        return {name: encode(values[attname]) for name, attname, encode in self._encoders}

    def partial_image(self, values: Mapping[str, Any]) -> Image:
        """Return the image of a row of which some values are not known."""
        return {n: encode(values[a]) for n, a, encode in self._encoders if a in values}

    def is_complete(self, image: Image) -> bool:
        """Return whether an image has all fields: code with other fields may have written it."""
        return tuple(image) == self._names or image.keys() >= self.fields.keys()

    def decode(self, image: Image, using: str) -> Image:
        """Return the image with the wire form of fields that have a conversion of their own."""
        if not self.raw_names:
            return image
        decoded = dict(image)
        for name in self.raw_names & image.keys():
            decoded[name] = self._decode_value(name, image[name], using)
        return decoded

    def _decode_value(self, name: str, stored: Any, using: str) -> Any:
        try:
            value = self._convert(self.fields[name], stored, using)
        except Exception:  # a field of the project, which may raise anything
            return None if stored is None else str(stored)
        # instances may have values of another type than the built-in field that it derives from
        for encode in (self._raw_encoders[name], to_json_value, str):
            with suppress(Exception):
                return encode(value)
        return None if stored is None else str(stored)

    def _convert(self, field: Any, value: Any, using: str) -> Any:
        """Return the value of an instance for a stored one, converted as in a query."""
        connection = connections[using]
        expression = field.get_col(self.model._meta.db_table)
        value = decode_raw(value)
        if isinstance(field, models.BinaryField) and isinstance(value, int):
            raise TypeError("bytes(value), which fields call, makes that many zeros of a number.")
        backend_converters = connection.ops.get_db_converters(expression)
        for convert in (*backend_converters, *expression.get_db_converters(connection)):
            value = convert(value, expression, connection)
        return value

    def to_instance(
        self, model: type[models.Model], image: Image, using: str, *, decoded: bool = False
    ) -> models.Model:
        """Return an instance of ``model`` from an image, which `decode` may have decoded.

        Fields that the image lacks, or whose value the field refuses now, are deferred.
        """
        names, values = [], []
        for name, field in self.fields.items():
            if name not in image:
                continue
            value = image[name]
            try:
                if name in self.raw_names and not decoded:
                    value = self._convert(field, value, using)
                elif value is not None:
                    value = field_value(field, value)
            except Exception:  # noqa: S112 - the field was changed after the image was made
                continue
            names.append(str(field.attname))
            values.append(value)
        return model.from_db(using, names, values)

    def document_id(self, key: Any) -> str:
        """Return the document id of a primary key; for a composite key, a JSON list of values."""
        return document_id(self.model, key)

    def key(self, document_id: str) -> Any | None:
        """Return the primary key with this document id; None if no row can have it."""
        fields = self.model._meta.pk_fields
        try:
            texts = [document_id] if len(fields) == 1 else split_document_id(document_id)
            values = [field.to_python(text) for field, text in zip(fields, texts, strict=True)]
        except Exception:  # of a field of the project, too
            return None
        return values[0] if len(fields) == 1 else tuple(values)


def document_id(model: type[models.Model], key: Any) -> str:
    """Return the document id of a primary key; for a composite key, a JSON list of values."""
    encoders = _key_encoders(model)
    if len(encoders) == 1:
        return str(encoders[0](key))
    values = [encode(value) for encode, value in zip(encoders, key, strict=True)]
    return json.dumps(values, separators=(",", ":"), ensure_ascii=False)


@cache
def has_custom_key(model: type[models.Model]) -> bool:
    """Return whether a field outside of Django converts values of the primary key."""
    return any(has_custom_conversion(field) for field in model._meta.pk_fields)


def split_document_id(document_id: str) -> list[Any]:
    """Return the values in the document id of a composite key. Raises ``ValueError``."""
    try:
        values = json.loads(document_id)
    except RecursionError:
        raise ValueError("too many levels") from None
    if not isinstance(values, list):
        raise ValueError(document_id)
    return values


_MISSING = object()


@cache
def _key_encoders(model: type[models.Model]) -> list[Encoder]:
    fields = model._meta.pk_fields
    return [field_encoder(field) for field in fields]


def changed_fields(before: Image, after: Image) -> tuple[str, ...]:
    """Return the names of the fields whose values differ between two images."""
    return tuple(name for name, value in after.items() if before.get(name, _MISSING) != value)

"""Kinds of fields, and the coercion of values to the form in which they are compared.

A value in a filter is coerced to the kind of the field, as Django's ORM does it: for an integer
field, ``"18"`` equals 18, and datetimes are compared as points in time. If a value cannot be
coerced, the filter is refused with `InvalidFilter`. Values in JSON are not coerced: there, the
text ``"18"`` does not equal the number 18.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from datetime import MINYEAR, UTC, date, datetime, time, tzinfo
from decimal import Context, Decimal, InvalidOperation
from enum import Enum
from ipaddress import IPv6Address, ip_address
from typing import Any
from uuid import UUID


class InvalidFilter(ValueError):
    """A filter is not valid. The message names the key and what is allowed."""


class Kind(Enum):
    """The kinds of values that filters distinguish. Members' values are for error messages."""

    TEXT = "text"
    INTEGER = "integer"
    DECIMAL = "decimal number"
    FLOAT = "number"
    BOOLEAN = "boolean"
    DATETIME = "datetime"
    DATE = "date"
    TIME = "time"
    UUID = "UUID"
    ADDRESS = "IP address"
    KEY = "id"
    JSON = "JSON value: text, number or boolean"
    OPAQUE = "value that filters cannot compare"


# the kinds by which rows can be sorted
ORDERED_KINDS = frozenset(Kind) - {Kind.KEY, Kind.JSON, Kind.OPAQUE}
NUMBER_KINDS = frozenset({Kind.INTEGER, Kind.DECIMAL, Kind.FLOAT})

# a reference to a value in a row: ("age",), or ("meta", "owner") for a path into JSON
Ref = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """The properties of a field that filters need."""

    # name of the field, such as "owner"
    name: str
    # kind of the field's values; `Kind.KEY` for primary keys and foreign keys
    kind: Kind
    # if the kind is `Kind.KEY`, the kind of the key's values
    key: Kind = Kind.TEXT
    # the project's time zone, in which naive datetimes are interpreted
    zone: tzinfo = field(default=UTC, compare=False)
    # whether this is the primary key
    primary_key: bool = False
    # maximal number of characters of a text; None for no limit
    max_length: int | None = field(default=None, compare=False)
    # reference to the field's value; all conditions on the field share this object
    ref: Ref = field(init=False, repr=False, compare=False)

    # the kind as which values are compared: for `Kind.KEY`, the kind of the key's values
    compares_as: Kind = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ref", (self.name,))
        object.__setattr__(self, "compares_as", self.key if self.kind is Kind.KEY else self.kind)

    @property
    def ordered(self) -> bool:
        """Whether rows can be sorted by this field."""
        return self.compares_as in ORDERED_KINDS


# the fields of a collection by name
Schema = Mapping[str, FieldSpec]

# The earliest and latest datetimes in UTC. They also stand for local times that are out of range in
# UTC, see `in_utc`: projects use datetime.max in their local time zone for "never expires", and in
# America/Chicago, for example, this is later than the last datetime in UTC.
EARLIEST, LATEST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)

MAX_DECIMAL_DIGITS = 400  # before the decimal point, and after it
# the integers that databases can store
INT64 = range(-(2**63), 2**63)
# calculates without rounding: with more digits than a coerced decimal can have
_EXACT = Context(prec=1000)
# matches texts that are converted to integers
_INTEGER = re.compile(r"[+-]?[0-9]{1,40}", re.ASCII)


def in_utc(moment: datetime) -> datetime:
    """Convert an aware datetime to UTC. If it is out of range, return `EARLIEST` or `LATEST`."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return EARLIEST if moment.year == MINYEAR else LATEST


def coerce(spec: FieldSpec, value: Any) -> Hashable:
    """Return the value in the form in which this field's values are compared.

    Raises ``ValueError``, ``TypeError`` or ``OverflowError`` if it is not valid for the field.
    """
    return _COERCE[spec.compares_as](value, spec)


def key_of(kind: Kind, value: Any) -> Hashable:
    """Return the key of a coerced value in sets and dictionaries; equal values have equal keys.

    Python hashes numbers and UUIDs without a secret, modulo 2^61 - 1. A client could choose many
    values of one hash, for example multiples of that number, with which each access to a set or
    dictionary would take as long as a search in a list. Hashes of texts are not predictable.
    """
    to_key = KEYS.get(kind)
    return value if to_key is None else to_key(value)


def value_of(kind: Kind, key: Hashable) -> Hashable:
    """Return the coerced value of which `key_of` returns this key. ``kind`` is not JSON."""
    to_value = _VALUES.get(kind)
    return key if to_value is None else to_value(key)


def number_key(value: float) -> str:
    """Return the key of a finite number in JSON, which is equal for 1 and 1.0; see `key_of`."""
    # in hexadecimal, because the time for decimal digits grows with the square of their number
    return hex(int(value)) if value == value // 1 else value.hex()


def fold(text: str) -> str:
    """Return a text without its case, by the simple lower-case mapping of each character.

    Unlike ``str.lower``, it does not depend on neighbouring characters (as for the Greek final
    sigma). Databases do not look at these either, and all backends of a filter must agree.
    """
    if not text.isascii():
        # the characters of which ``str.lower`` returns more than one, or another one at word ends
        text = text.replace("\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}", "i")
        text = text.replace("\N{GREEK CAPITAL LETTER SIGMA}", "\N{GREEK SMALL LETTER SIGMA}")
    return text.lower()


def _text(value: Any, spec: FieldSpec) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError


def _integer(value: Any, spec: FieldSpec) -> int:
    if isinstance(value, bool):
        raise ValueError
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    raise ValueError


def _decimal(value: Any, spec: FieldSpec) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise ValueError
    text = str(value)
    if len(text) > MAX_DECIMAL_DIGITS:
        raise ValueError
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError from None
    if not number.is_finite() or abs(number.adjusted()) > MAX_DECIMAL_DIGITS:
        raise ValueError
    return number


def _float(value: Any, spec: FieldSpec) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise ValueError
    number = float(value)
    if math.isnan(number):
        raise ValueError
    return number


def _boolean(value: Any, spec: FieldSpec) -> bool:
    if isinstance(value, bool):
        return value
    truth_values = {"true": True, "1": True, "false": False, "0": False}
    text = str(value).lower() if isinstance(value, str | int) else ""
    if text not in truth_values:
        raise ValueError
    return truth_values[text]


def _datetime(value: Any, spec: FieldSpec) -> datetime:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        raise ValueError
    if value.tzinfo is None:
        return in_utc(value.replace(tzinfo=spec.zone))
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError from None


def _date(value: Any, spec: FieldSpec) -> date:
    if isinstance(value, str):
        return date.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    raise ValueError


def _time(value: Any, spec: FieldSpec) -> time:
    value = time.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(value, time) or value.tzinfo is not None:
        raise ValueError
    return value


def _uuid(value: Any, spec: FieldSpec) -> UUID:
    if isinstance(value, UUID):
        return value
    if not isinstance(value, str):
        raise ValueError
    return UUID(value)


def _address(value: Any, spec: FieldSpec) -> str:
    if not isinstance(value, str):
        raise ValueError
    address = ip_address(value)
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return f"::ffff:{address.ipv4_mapped}"
    return str(address)


def _json(value: Any, spec: FieldSpec) -> Hashable:
    # with the type, so that neither true nor "1" equals 1
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return ("number", value)
    if isinstance(value, str):
        return ("text", value)
    raise ValueError


def _opaque(value: Any, spec: FieldSpec) -> Hashable:
    raise ValueError


# functions that coerce a value, or raise an exception, by kind
_COERCE: dict[Kind, Callable[[Any, FieldSpec], Hashable]] = {
    Kind.TEXT: _text,
    Kind.INTEGER: _integer,
    Kind.DECIMAL: _decimal,
    Kind.FLOAT: _float,
    Kind.BOOLEAN: _boolean,
    Kind.DATETIME: _datetime,
    Kind.DATE: _date,
    Kind.TIME: _time,
    Kind.UUID: _uuid,
    Kind.ADDRESS: _address,
    Kind.JSON: _json,
    Kind.OPAQUE: _opaque,
}


# keys of values, see `key_of`


def _float_key(value: float) -> str:
    return (value + 0.0).hex()  # the sum turns -0.0 into 0.0


def _decimal_key(value: Decimal) -> str:
    return str(_EXACT.normalize(value)) if value else "0"


def _json_key(value: tuple[str, Any]) -> tuple[str, Any]:
    json_type, inner = value
    return (json_type, number_key(inner)) if json_type == "number" else value


# functions that return a key, for the kinds whose hashes are predictable
KEYS: dict[Kind, Callable[[Any], Hashable]] = {
    Kind.INTEGER: str,
    Kind.DECIMAL: _decimal_key,
    Kind.FLOAT: _float_key,
    Kind.DATETIME: datetime.isoformat,
    Kind.UUID: lambda value: value.hex,
    Kind.JSON: _json_key,
}

# functions that return the value of a key, see `value_of`
_VALUES: dict[Kind, Callable[[Any], Hashable]] = {
    Kind.INTEGER: int,
    Kind.DECIMAL: Decimal,
    Kind.FLOAT: float.fromhex,
    Kind.DATETIME: datetime.fromisoformat,
    Kind.UUID: UUID,
}

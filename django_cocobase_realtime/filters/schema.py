"""Kinds of fields, and how a value, a client's or a row's, becomes one that compares.

A filter's value is coerced by the field's kind, as the ORM would: ``"18"`` equals 18 on an
integer field, datetimes compare as instants. A value that cannot be coerced is an error at
subscribe time, never a silent no-match. JSON knows no such kindness: there, a number is a number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from datetime import MINYEAR, UTC, date, datetime, time, tzinfo
from decimal import Decimal, InvalidOperation
from enum import Enum
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Any
from uuid import UUID


class InvalidFilter(ValueError):
    """The filter does not hold up. The message names the key and what would be allowed."""


class Kind(Enum):
    """What a field holds, as far as comparing goes."""

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


Ref = tuple[str, ...]
"""What a condition looks at: a field's name, and the keys of a path into its JSON."""


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """A field of an image. ``key`` is the kind of the id behind a `Kind.KEY`.

    ``zone`` is the project's: naive datetimes are read in it. ``ref`` looks at the whole field,
    one object for all conditions that do.
    """

    name: str
    kind: Kind
    key: Kind = Kind.TEXT
    zone: tzinfo = field(default=UTC, compare=False)
    primary_key: bool = False
    ref: Ref = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ref", (self.name,))

    @property
    def ordered(self) -> bool:
        """Whether rows can be sorted by it."""
        return self.compares_as not in (Kind.JSON, Kind.OPAQUE)

    @property
    def compares_as(self) -> Kind:
        """The kind of its values; of an id, the kind behind it."""
        return self.key if self.kind is Kind.KEY else self.kind


Schema = Mapping[str, FieldSpec]

FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
"""The ends of the calendar. For ever, west of Greenwich, is after the last moment in UTC."""

DIGITS = 400  # of a decimal number, before and after its point
_INTEGER = re.compile(r"[+-]?[0-9]{1,40}", re.ASCII)


def in_utc(moment: datetime) -> datetime:
    """An aware moment in UTC; one that is beyond the calendar there is its first or last."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return FIRST if moment.year == MINYEAR else LAST


def coerce(spec: FieldSpec, value: Any) -> Hashable:
    """A value as it compares on this field. Raises ``ValueError`` where it cannot be one."""
    return _COERCE[spec.compares_as](value, spec)


def fold(text: str) -> str:
    """Text without its case: each character's simple lower-case mapping (Unicode, UnicodeData).

    Not ``str.lower``: that one also looks at a character's neighbours (the final sigma), which
    no database does, and all faces of a filter must agree.
    """
    return text.lower() if text.isascii() else "".join(map(_fold_one, text))


@lru_cache(maxsize=4096)
def _fold_one(character: str) -> str:
    lower = character.lower()
    return lower if len(lower) == 1 else lower[0]


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
    if len(text) > DIGITS:
        raise ValueError
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError from None
    if not number.is_finite() or abs(number.adjusted()) > DIGITS:
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
    known = {"true": True, "1": True, "false": False, "0": False}
    text = str(value).lower() if isinstance(value, str | int) else ""
    if text not in known:
        raise ValueError
    return known[text]


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
    # tagged, so that true is not 1 and "1" is not 1
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, int | float) and math.isfinite(value):
        return ("number", value)
    if isinstance(value, str):
        return ("text", value)
    raise ValueError


def _opaque(value: Any, spec: FieldSpec) -> Hashable:
    raise ValueError


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

"""Random values of every type of field, most of them hard to write down without a loss."""

import math
import struct
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

TEXTS = [
    "",
    "a",
    '"',
    "'",
    "\\",
    '\\"',
    "\n\r\t\b\f",
    "\x01\x1f\x7f",
    "\u2028\u2029",
    "ä",
    "\U0001f600",
    "\ufeff\uffff",
    "null",
    "[",
    '["r","1"]',
    '["x","00"]',
    "{}",
    "%s %d %%",
    "$body$",
    "O'Neil; --",
    "1",
    "1.0",
    "true",
    "2026-01-02",
]
INTEGERS = [0, 1, -1, 127, 2**31 - 1, -(2**31), 10**9]
BIGS = [0, 2**53 - 1, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)]
FLOATS = [
    0.0,
    1.0,
    -1.0,
    0.1,
    0.1 + 0.2,
    1 / 3,
    1e15,
    1e16,
    1e22,
    1e23,
    123456789.123456789,
    2.0**53,
    2.0**53 + 2,
    2.0**63,
    5e-324,
    2.2250738585072014e-308,
    1.7976931348623157e308,
    math.pi * 1e-10,
    math.inf,
    -math.inf,
]
DECIMALS = ["0", "-0.0001", "0.1", "1.1000", "99999999999.9999", "-12345678901.2345", "1E+3"]
DATES = [date(1, 1, 1), date(999, 12, 31), date(1900, 2, 28), date(2024, 2, 29), date(9999, 12, 31)]
MOMENTS = [
    datetime(1, 1, 2, tzinfo=UTC),
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(1999, 12, 31, 23, 59, 59, 999999, UTC),
    datetime(2026, 3, 29, 1, 30, tzinfo=UTC),  # a summer time begins
    datetime(2026, 7, 2, 10, 0, 0, 500, UTC),
    datetime(9999, 12, 30, 23, 59, 59, 999999, UTC),
]
TIMES = [time(0), time(0, 0, 0, 1), time(10), time(23, 59, 59, 999999)]
DURATIONS = [
    timedelta(0),
    timedelta(microseconds=1),
    timedelta(days=-1, seconds=1),
    timedelta(days=999, hours=23, microseconds=999999),
    timedelta(days=-99999),
]
UUIDS = [uuid.UUID(int=n) for n in (0, 7, 2**127, 2**128 - 1)]
ADDRESSES = ["0.0.0.0", "10.0.0.1", "::1", "::ffff:10.0.0.1", "fe80::1", "2001:db8::ff00:42:8329"]
BLOBS = [b"", b"\x00", b"\x00\xff", b"abc", b'"', b"\\x41", bytes(range(256))]
FILES = ["", "a.txt", "dir/ü.png", 'a"b']


class Random:
    """Draws values of fields; ``generator`` is a `random.Random`."""

    def __init__(self, generator, *, nul):
        self._generator = generator
        self._texts = [*TEXTS, "\x00", "a\x00b"] if nul else TEXTS

    def one_of(self, values):
        return self._generator.choice(values)

    def text(self, length=10_000):
        draw = self._generator
        if draw.random() < 0.6:
            return self.one_of(self._texts)[:length]
        if draw.random() < 0.05:
            return (self.one_of(self._texts) or "x") * min(length // 20, 500)
        ranges = [(1, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF)]
        return "".join(
            chr(draw.randint(*self.one_of(ranges))) for _ in range(draw.randint(0, min(length, 12)))
        )

    def integer(self, bits):
        draw = self._generator
        if draw.random() < 0.5:
            return self.one_of([n for n in INTEGERS + BIGS if -(2**bits) <= n < 2**bits])
        return draw.randint(-(2**bits), 2**bits - 1) >> draw.randint(0, bits)

    def positive(self):
        return abs(self.integer(62))

    def float(self):
        if self._generator.random() < 0.5:
            return self.one_of(FLOATS)
        value = struct.unpack("<d", self._generator.randbytes(8))[0]
        return 0.5 if math.isnan(value) else value

    def decimal(self, digits=15, places=4):
        if self._generator.random() < 0.4:
            return Decimal(self.one_of(DECIMALS))
        return Decimal(self.integer(62) % 10**digits).scaleb(-places)

    def moment(self):
        if self._generator.random() < 0.5:
            return self.one_of(MOMENTS)
        seconds = self._generator.randint(-(10**10), 10**10)
        return datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, microseconds=seconds)

    def json(self, depth=3):
        draw = self._generator
        kind = draw.randint(0, 7 if depth else 5)
        if kind == 6:
            return [self.json(depth - 1) for _ in range(draw.randint(0, 3))]
        if kind == 7:
            return {self.text(8): self.json(depth - 1) for _ in range(draw.randint(0, 3))}
        finite = [value for value in FLOATS if math.isfinite(value)]
        return [None, True, False, self.text(50), self.integer(63), self.one_of(finite)][kind]

    def everything(self):
        """Return values of the fields of `tests.app.models.Everything`."""
        values = {
            "big": self.integer(63),
            "binary": self.one_of(BLOBS),
            "char": self.text(50),
            "email": self.text(254),
            "slug": self.text(50),
            "text": self.text(),
            "url": self.text(200),
        }
        nullable = {
            "boolean": lambda: self.one_of([True, False]),
            "date": lambda: self.one_of(DATES),
            "moment": self.moment,
            "decimal": self.decimal,
            "duration": lambda: self.one_of(DURATIONS),
            "file": lambda: self.one_of(FILES),
            "path": lambda: self.text(100),
            "float": self.float,
            "ip": lambda: self.one_of(ADDRESSES),
            "integer": lambda: self.integer(30),
            "json": self.json,
            "positive": self.positive,
            "small": lambda: self.integer(15),
            "time": lambda: self.one_of(TIMES),
            "uuid": lambda: self.one_of(UUIDS),
        }
        for name, draw in nullable.items():
            values[name] = None if self._generator.random() < 0.15 else draw()
        return values

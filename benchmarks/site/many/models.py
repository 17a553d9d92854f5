"""Models ``Row0``, ``Row1`` and so on, all alike."""

from __future__ import annotations

import os

from django.db import models


class Base(models.Model):
    """A row with the fields of a post that the benchmarks need."""

    body = models.TextField(default="")
    status = models.CharField(max_length=20, default="s0")

    class Meta:
        abstract = True


rows: list[type[Base]] = [
    type(f"Row{number}", (Base,), {"__module__": __name__})
    for number in range(int(os.environ.get("BENCH_MODELS") or 0))
]

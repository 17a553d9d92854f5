"""Managers of the package are generic, as Django's are; read by mypy in ``make lint``."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from django.db import models

from django_cocobase_realtime.managers import RealtimeManager, RealtimeQuerySet

if TYPE_CHECKING:
    from typing import assert_type


class NoteQuerySet(RealtimeQuerySet["Note"]):
    def long(self) -> NoteQuerySet:
        return self.filter(text__gt="x")


class NoteManager(RealtimeManager["Note"]):
    def first_text(self) -> str:
        note = self.first()
        return "" if note is None else note.text


class Note(models.Model):
    text = models.TextField()

    objects: ClassVar[RealtimeManager[Note]] = RealtimeManager()
    notes: ClassVar[NoteManager] = NoteManager()

    class Meta:
        app_label = "typed"

    def __str__(self) -> str:
        return self.text


def check() -> None:
    assert_type(Note.objects.get(), Note)
    assert_type(Note.objects.create(text="x"), Note)
    assert_type(Note.objects.filter(text="x").update(text="y"), int)
    assert_type(Note.notes.get(), Note)
    assert_type(Note.notes.first_text(), str)
    assert_type(NoteQuerySet(Note).long(), NoteQuerySet)
    assert_type(NoteQuerySet(Note).long().first(), Note | None)

"""Triggers and what the session that writes has set."""

import io

import pytest
from django.core.management import call_command
from django.db import connection

from tests.capture_app.models import (
    Page,
)
from tests.support.watching import logged, summary, watching

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


if connection.vendor == "postgresql":

    @pytest.fixture
    def triggers():
        from tests.app.models import Everything

        with watching(Page, Everything, capture="triggers"):
            call_command("realtime_triggers", "install", stdout=io.StringIO())
            yield
            call_command("realtime_triggers", "remove", stdout=io.StringIO())

    def test_triggers_log_whatever_the_search_path_is(triggers):
        with connection.cursor() as cursor:
            cursor.execute("CREATE SCHEMA reports")
            cursor.execute("SET search_path = reports")
            try:
                cursor.execute(
                    "INSERT INTO public.capture_app_page (html, slug, status, a, b) "
                    "VALUES ('', '', 'x', 1, 2)"
                )
                cursor.execute("UPDATE public.capture_app_page SET a = 2")
                cursor.execute("SHOW search_path")
                assert cursor.fetchone() == ("reports",)
                cursor.execute("DELETE FROM public.capture_app_page")
                cursor.execute("TRUNCATE public.capture_app_page")
            finally:
                cursor.execute("RESET search_path")
                cursor.execute("DROP SCHEMA reports")
        assert [op for _, op, _ in summary()] == ["created", "updated", "deleted"]

    def test_images_of_triggers_do_not_depend_on_settings_of_the_session(triggers):
        from tests.app.models import Everything

        values = {
            "float": 0.1 + 0.2,
            "date": "2026-01-02",
            "moment": "2026-01-02T10:00:00Z",
            "duration": "1 02:03:04.5",
            "binary": b"\x00\xff",
        }
        Everything.objects.create(**values)
        row = Everything.objects.values_list("float", "date", "moment", "duration", "binary").get()
        assert row[0] == 0.1 + 0.2
        settings = {
            "timezone": "Asia/Tokyo",
            "datestyle": "German, DMY",
            "intervalstyle": "iso_8601",
            "bytea_output": "escape",
            "extra_float_digits": "-5",
        }
        columns = (
            'float, date, moment, duration, "binary", big, "char", email, file, slug, text, url'
        )
        with connection.cursor() as cursor:
            for name, value in settings.items():
                cursor.execute(f"SET {name} = '{value}'")
            cursor.execute(
                f"INSERT INTO app_everything ({columns}) SELECT {columns} FROM app_everything"
            )
        connection.close()
        first, second = logged("everything")
        assert {**first.after, "id": None} == {**second.after, "id": None}

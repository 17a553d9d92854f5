"""Checks of related fields, such as ``assignee.username``."""

import pytest

from django_cocobase_realtime.checks import check_settings
from tests.declarations.test_related_fields import FIELDS
from tests.relations_app.models import Project


@pytest.fixture
def problems(settings):
    def check(fields, **options):
        collection = {"model": "relations_app.Ticket", "fields": fields, **options}
        settings.COCOBASE_REALTIME = {"COLLECTIONS": {"tickets": collection}}
        return [
            (message.id.removeprefix("cocobase_realtime."), f"{message.msg} {message.hint}")
            for message in check_settings()
        ]

    return check


def test_correct_fields_are_no_problem(problems):
    assert problems(FIELDS) == []
    assert problems(["file.url"], model="relations_app.Attachment") == []


@pytest.mark.parametrize(
    ("fields", "options", "id", "part"),
    [
        (["project.nothing"], {}, "E006", "'nothing' is no field of relations_app.Project"),
        (["title.x"], {}, "E006", "separated by '.'"),
        (["nothing.name"], {}, "E006", "not a field of relations_app.Ticket"),
        (["assignee.password"], {}, "E007", "looks secret"),
        (["assignee.username"], {"durable": False}, "E105", "Set 'durable' to True"),
        (["assignee.username"], {"serializer": "builtins.dict"}, "E105", "has a serializer"),
        (["attachments", "project.labels"], {}, "E105", "more than one relation"),
    ],
)
def test_mistake_is_reported_with_a_hint(problems, fields, options, id, part):
    ((found, text),) = problems(["title", *fields], **options)
    assert found == id
    assert part in text


def test_table_that_cannot_be_followed_is_reported(problems, monkeypatch):
    monkeypatch.setattr(Project._meta, "managed", False)
    ((found, text),) = problems(["project.name"])
    assert found == "E102"
    assert "'relations_app.Project'" in text

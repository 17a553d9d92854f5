"""Checks of the options for live queries: ``orders``, ``order_fields`` and ``aggregates``."""

import pytest

from django_cocobase_realtime.checks import check_settings


@pytest.fixture
def problems(settings):
    settings.DEBUG = True

    def check(**options):
        settings.COCOBASE_REALTIME = {
            "COLLECTIONS": {"posts": {"model": "app.Post", "fields": ["title"], **options}}
        }
        return [
            (message.id.removeprefix("cocobase_realtime."), f"{message.msg} {message.hint}")
            for message in check_settings()
        ]

    return check


def test_correct_options_are_no_problem(problems):
    assert (
        problems(orders=["title", "-title", "-views,title"], order_fields=["title", "views"]) == []
    )
    assert problems(aggregates=("views", "created_at")) == []


@pytest.mark.parametrize(
    ("options", "id", "part"),
    [
        ({"order_fields": "title"}, "E004", "list of field names"),
        ({"aggregates": [1]}, "E004", "list of field names"),
        ({"orders": "title"}, "E004", "list of orders"),
        ({"orders": [("title", "views")]}, "E004", "list of orders"),
        ({"order_fields": ["nothing"]}, "E006", "not a field of app.Post"),
        ({"aggregates": ["nothing"]}, "E006", "not a field of app.Post"),
        ({"order_fields": ["meta"]}, "E108", "no order"),
        ({"aggregates": ["meta.views"]}, "E108", "no order"),
        ({"orders": ["title", "-views"]}, "E108", "order '-views' is not allowed"),
        ({"orders": ["title,-title"]}, "E108", "names a field twice"),
        ({"orders": [""]}, "E108", "Name its fields in 'order_fields'"),
        (
            {"model": "app.Author", "fields": ["name"], "order_fields": ["password"]},
            "E007",
            "looks secret",
        ),
        (
            {"model": "app.Patient", "fields": ["diagnosis"], "orders": ["diagnosis"]},
            "W110",
            "windows cannot be sorted by 'diagnosis'",
        ),
    ],
)
def test_mistake_is_reported_with_a_hint(problems, options, id, part):
    ((found, text),) = problems(**options)
    assert found == id
    assert part in text


def test_options_are_not_checked_if_the_collection_has_other_mistakes(problems):
    assert [id for id, _ in problems(soft_delete="nothing", orders=["views"])] == ["E006"]
    assert [id for id, _ in problems(serializer="nothing", orders=["views"])] == ["E008"]

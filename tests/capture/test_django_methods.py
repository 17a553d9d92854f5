"""The methods of Django that capture replaces or relies on are those it was written for."""

from pathlib import Path

import pytest

from django_cocobase_realtime.capture import writes
from tests.support import django_methods
from tests.support.django_methods import RELIED_ON, WRAPPED, digests, version

PACKAGE = Path(writes.__file__).parent
HOW_TO = """
Capture replaces these methods of Django, or relies on what they do, and in {version} they are not
those that it was written for:

    {names}

1. Compare each with the versions that capture was written for ({known}).
2. Adapt django_cocobase_realtime/capture to what has changed, and run all tests with {version}.
3. Put the digests that `python -m tests.support.django_methods` prints into DIGESTS of
   tests/capture/test_django_methods.py.
"""

DIGESTS = {
    "5.2": {
        "SQLInsertCompiler.execute_sql": "1be48f07cc52",
        "SQLUpdateCompiler.execute_sql": "06dea0ff6756",
        "SQLDeleteCompiler.execute_sql": "b644323feca2",
        "Model.save_base": "18c98abaa37d",
        "Model._save_table": "4817dd28f8b6",
        "Collector._has_signal_listeners": "b9800c1d2142",
        "SQLCompiler.get_converters": "be7b8a3e0189",
        "SQLInsertCompiler.as_sql": "3f95601edadb",
        "SQLUpdateCompiler.as_sql": "344782fb42d9",
        "SQLUpdateCompiler.pre_sql_setup": "74a5c5cdf8ff",
        "SQLDeleteCompiler.as_sql": "56ddc588c6d6",
        "UpdateQuery.get_related_updates": "bbd76669e563",
        "Model._save_parents": "1562441ed62b",
        "Model._do_insert": "a99af8cbdcd7",
        "Model._do_update": "dff290ab401e",
        "Collector.can_fast_delete": "83302002c474",
        "Collector.delete": "c7a58f0dde58",
        "BaseDatabaseWrapper.commit": "ed3e9d8629ff",
        "BaseDatabaseWrapper.rollback": "81154bd6ef5c",
        "BaseDatabaseWrapper.on_commit": "bc6d67efdb76",
    },
    "6.0": {
        "SQLInsertCompiler.execute_sql": "768bfa1ffaf9",
        "SQLUpdateCompiler.execute_sql": "e358d1106d1d",
        "SQLUpdateCompiler.execute_returning_sql": "477f16d8cfab",
        "SQLDeleteCompiler.execute_sql": "b644323feca2",
        "Model.save_base": "18c98abaa37d",
        "Model._save_table": "d1d5333f318a",
        "Collector._has_signal_listeners": "b9800c1d2142",
        "SQLCompiler.get_converters": "be7b8a3e0189",
        "SQLInsertCompiler.as_sql": "cb0b01ac4471",
        "SQLUpdateCompiler.as_sql": "e3d7fa9ca10a",
        "SQLUpdateCompiler.pre_sql_setup": "74a5c5cdf8ff",
        "SQLDeleteCompiler.as_sql": "56ddc588c6d6",
        "UpdateQuery.get_related_updates": "bbd76669e563",
        "Model._save_parents": "1562441ed62b",
        "Model._do_insert": "a99af8cbdcd7",
        "Model._do_update": "d83dbdfe4f78",
        "Collector.can_fast_delete": "83302002c474",
        "Collector.delete": "ce99fc7fc2bc",
        "BaseDatabaseWrapper.commit": "ed3e9d8629ff",
        "BaseDatabaseWrapper.rollback": "81154bd6ef5c",
        "BaseDatabaseWrapper.on_commit": "bc6d67efdb76",
    },
    "6.1": {
        "SQLInsertCompiler.execute_sql": "768bfa1ffaf9",
        "SQLUpdateCompiler.execute_sql": "e358d1106d1d",
        "SQLUpdateCompiler.execute_returning_sql": "477f16d8cfab",
        "SQLDeleteCompiler.execute_sql": "6981fc760ec7",
        "Model.save_base": "18c98abaa37d",
        "Model._save_table": "7631615e2c50",
        "Collector._has_signal_listeners": "b9800c1d2142",
        "SQLCompiler.get_converters": "be7b8a3e0189",
        "SQLInsertCompiler.as_sql": "e202a6d1f040",
        "SQLUpdateCompiler.as_sql": "d9ed1eac9d3a",
        "SQLUpdateCompiler.pre_sql_setup": "74a5c5cdf8ff",
        "SQLDeleteCompiler.as_sql": "56ddc588c6d6",
        "UpdateQuery.get_related_updates": "bbd76669e563",
        "Model._save_parents": "1562441ed62b",
        "Model._do_insert": "a99af8cbdcd7",
        "Model._do_update": "476c307fb349",
        "Collector.can_fast_delete": "a4a74f054765",
        "Collector.delete": "ce99fc7fc2bc",
        "BaseDatabaseWrapper.commit": "ed3e9d8629ff",
        "BaseDatabaseWrapper.rollback": "81154bd6ef5c",
        "BaseDatabaseWrapper.on_commit": "23b77addd074",
    },
}


def test_methods_are_those_of_a_known_django_version():
    known, installed = DIGESTS.get(version(), {}), digests()
    names = sorted(
        name for name in known.keys() | installed.keys() if known.get(name) != installed.get(name)
    )
    if names:
        message = HOW_TO.format(
            version=f"Django {version()}", names="\n    ".join(names), known=", ".join(DIGESTS)
        )
        pytest.fail(message, pytrace=False)


def test_unknown_version_is_noticed(monkeypatch):
    monkeypatch.setattr(f"{__name__}.version", lambda: "99.0")
    with pytest.raises(pytest.fail.Exception, match=r"in Django 99\.0 (.|\n)*Model\.save_base\n"):
        test_methods_are_those_of_a_known_django_version()


def test_changed_method_is_noticed(monkeypatch):
    monkeypatch.setattr(django_methods.Model, "save_base", lambda self: None)
    with pytest.raises(pytest.fail.Exception, match=r":\n\n    Model\.save_base\n\n1\."):
        test_methods_are_those_of_a_known_django_version()


def test_list_of_replaced_methods_is_complete():
    owners = {owner for owner, _ in (*WRAPPED, *RELIED_ON)}
    replaced = {
        (owner, name)
        for owner in owners
        for name, method in vars(owner).items()
        if getattr(method, "__code__", None) is not None
        and Path(method.__code__.co_filename).parent == PACKAGE
    }
    assert replaced == {(owner, name) for owner, name in WRAPPED if hasattr(owner, name)}

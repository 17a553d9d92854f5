"""The test runner that Django's ``runtests.py`` uses, by ``settings.TEST_RUNNER``.

It installs the app, watches every model after the test databases are created, and writes down the
outcome of each test and what the oracle found.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import time
import traceback
import unittest
from typing import Any

from django.apps import apps
from django.conf import UserSettingsHolder, settings
from django.test import SimpleTestCase, TestCase, TransactionTestCase
from django.test import utils as test_utils
from django.test.runner import DiscoverRunner, ParallelTestSuite, RemoteTestResult, RemoteTestRunner
from django.test.utils import override_settings

from tests.django_suite import queries, watching
from tests.django_suite.options import from_environment
from tests.django_suite.oracle import Oracle

options = from_environment()
TIME_ZONE_SETTINGS = {"USE_TZ", "TIME_ZONE"}


def write_record(kind: str, test: str, **values: Any) -> None:
    """Append a line to this process's file in the folder of the run."""
    with (options.folder / f"{os.getpid()}.jsonl").open("a") as file:
        file.write(json.dumps({"kind": kind, "test": test, **values}) + "\n")


class TestFailed(Exception):
    """An exception of a test as text, since tracebacks cannot be pickled."""

    __test__ = False


class RecordingResult(unittest.TestResult):
    """Writes down the outcome of each test, and passes on exceptions as text."""

    def startTest(self, test: Any) -> None:
        self._started = time.monotonic()
        super().startTest(test)

    def addSuccess(self, test: Any) -> None:
        self._record(test, "passed")
        super().addSuccess(test)

    def addSkip(self, test: Any, reason: str) -> None:
        self._record(test, "skipped")
        super().addSkip(test, reason)

    def addExpectedFailure(self, test: Any, err: Any) -> None:
        self._record(test, "passed")
        super().addExpectedFailure(test, as_text(err))

    def addUnexpectedSuccess(self, test: Any) -> None:
        self._record(test, "failed", "Unexpected success.")
        super().addUnexpectedSuccess(test)

    def addError(self, test: Any, err: Any) -> None:
        err = as_text(err)
        self._record(test, "failed", str(err[1]))
        super().addError(test, err)

    def addFailure(self, test: Any, err: Any) -> None:
        err = as_text(err)
        self._record(test, "failed", str(err[1]))
        super().addFailure(test, err)

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            self.addFailure(test, as_text(err, f"{subtest}\n"))

    def _record(self, test: Any, outcome: str, text: str = "") -> None:
        seconds = time.monotonic() - getattr(self, "_started", time.monotonic())
        write_record("outcome", test.id(), outcome=outcome, seconds=round(seconds, 4), text=text)


def as_text(err: Any, heading: str = "") -> Any:
    """Return exception info whose exception has the traceback as its message."""
    if isinstance(err[1], TestFailed):
        return err
    failure = TestFailed(heading + "".join(traceback.format_exception(*err)))
    return TestFailed, failure, None


class Result(RecordingResult, unittest.TextTestResult):
    """Used without parallel processes."""


class RemoteResult(RecordingResult, RemoteTestResult):
    """Used in a parallel process."""


class RemoteRunner(RemoteTestRunner):
    """Runs tests in a parallel process."""

    resultclass = RemoteResult


class ParallelSuite(ParallelTestSuite):
    """Runs test classes in parallel processes."""

    runner_class = RemoteRunner


class Runner(DiscoverRunner):
    """Runs Django's tests as the options say."""

    parallel_test_suite = ParallelSuite

    def get_resultclass(self) -> Any:
        return Result if self.parallel <= 1 else None

    def run_tests(self, *args: Any, **kwargs: Any) -> int:
        if options.capture:
            settings.INSTALLED_APPS += ["channels", "django_cocobase_realtime"]
            apps.set_installed_apps(settings.INSTALLED_APPS)
        return super().run_tests(*args, **kwargs)

    def setup_databases(self, **kwargs: Any) -> Any:
        if options.capture == "triggers":
            self._refused = watching.watch_everything("triggers")  # `migrate` installs them
        return super().setup_databases(**kwargs)

    def run_suite(self, suite: Any, **kwargs: Any) -> Any:
        if options.capture:
            if options.capture == "signals":
                self._refused = watching.watch_everything("signals")
            oracle = Oracle()
            oracle.install()
            observe(oracle)
            write_record("watched", "", models=len(oracle.collections), refused=self._refused)
        watching.find_references_in_tables()
        if options.queries:
            count_queries()
        result = super().run_suite(suite, **kwargs)
        write_record("finished", "")
        return result


def observe(oracle: Oracle) -> None:
    """Run the oracle in each test, and in each class for its ``setUpTestData``."""

    set_up_and_call = SimpleTestCase._setup_and_call
    post_teardown = TransactionTestCase._post_teardown
    set_up_class = TestCase.setUpClass.__func__

    def finish(test: str, cls: Any) -> None:
        finding = oracle.stop(cls._databases_names())
        write_record("oracle", test, **vars(finding))

    @functools.wraps(set_up_and_call)
    def _setup_and_call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(self, TransactionTestCase):
            oracle.start()
        return set_up_and_call(self, *args, **kwargs)

    @functools.wraps(post_teardown)
    def _post_teardown(self: Any) -> None:
        finish(self.id(), type(self))
        if not isinstance(self, TestCase):
            oracle.clear(self._databases_names())
        post_teardown(self)

    @functools.wraps(set_up_class)
    def setUpClass(cls: Any) -> None:
        oracle.start()
        set_up_class(cls)
        finish(f"setUpClass ({cls.__module__}.{cls.__qualname__})", cls)

    # Rows must be read with the time zone that they were written with. `enable` is not wrapped,
    # because it warns with a stack level.
    disable = override_settings.disable

    def compare() -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            oracle.compare()

    class Holder(UserSettingsHolder):
        def __init__(self, default_settings: Any) -> None:
            compare()
            super().__init__(default_settings)

    @functools.wraps(disable)
    def _disable(self: Any) -> None:
        if TIME_ZONE_SETTINGS & self.options.keys():
            compare()
        disable(self)

    test_utils.UserSettingsHolder = Holder
    override_settings.disable = _disable
    SimpleTestCase._setup_and_call = _setup_and_call
    TransactionTestCase._post_teardown = _post_teardown
    TestCase.setUpClass = classmethod(setUpClass)


def count_queries() -> None:
    """Write down how many queries each test sends."""
    call_test_method = unittest.TestCase._callTestMethod

    @functools.wraps(call_test_method)
    def _callTestMethod(self: Any, method: Any) -> Any:
        if not isinstance(self, TransactionTestCase):
            return call_test_method(self, method)
        before = queries.start()
        try:
            return call_test_method(self, method)
        finally:
            after = queries.totals()
            counts = {alias: after[alias] - before.get(alias, 0) for alias in after}
            write_record("queries", self.id(), counts=counts)

    unittest.TestCase._callTestMethod = _callTestMethod

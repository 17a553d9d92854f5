"""Capture within Django's `TestCase`, whose transaction is never committed."""

from django.test import TestCase

from django_cocobase_realtime.testing import capture_events
from tests.capture_app.models import Bug, Page
from tests.support.watching import assert_log_gives_tables, logged, watching


class CaptureInTestCaseTests(TestCase):
    def test_changes_are_logged_in_its_transaction(self):
        with watching(Page, Bug):
            page = Page.objects.create()
            Page.objects.update(a=1)
            Bug.objects.create(title="b")
            page.delete()
            ops = [change.op for change in logged("page")]
            assert ops == ["created", "updated", "deleted"]
            assert_log_gives_tables()

    def test_queries_are_counted_as_unwatched(self):
        for watched in ((), (Page, Bug)):
            with watching(*watched):
                with self.assertNumQueries(2):
                    Page.objects.create()
                    Page.objects.update(a=2)
                with self.assertNumQueries(2):
                    Bug.objects.create(title="b")

    def test_commit_callbacks_can_be_executed(self):
        with watching(Page), capture_events() as events:
            with self.captureOnCommitCallbacks(execute=True) as callbacks:
                Page.objects.create()
                Page.objects.update(a=1)
            assert callbacks
            assert [event.op for event in events] == ["created", "updated"]

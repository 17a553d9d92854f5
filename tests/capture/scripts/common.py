"""Scripts that write rows, run by `tests.capture.test_no_trace`.

A script returns what can be compared between two runs on empty tables.
"""

from tests.capture_app.models import Child, Parent

SCRIPTS = []


def script(function):
    """Add a function to the scripts."""
    SCRIPTS.append(function)
    return function


def families(count=3, children=4):
    parents = [Parent.objects.create(slug=f"s{n}") for n in range(count)]
    Child.objects.bulk_create(
        [Child(parent=parent, text="x") for parent in parents for _ in range(children)]
    )
    return parents

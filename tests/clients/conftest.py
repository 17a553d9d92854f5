"""Which tests of the clients run on PostgreSQL."""

from pathlib import Path

from tests.support.triggers import is_postgres

FOLDER = Path(__file__).parent
DATABASE_FIXTURES = {"db", "transactional_db"}


def uses_database(item):
    fixtures = DATABASE_FIXTURES & set(item.fixturenames)
    return item.get_closest_marker("django_db") is not None or bool(fixtures)


def pytest_collection_modifyitems(config, items):
    """Run tests of clients that use no database once: on SQLite."""
    if is_postgres():
        once = [i for i in items if i.path.is_relative_to(FOLDER) and not uses_database(i)]
        config.hook.pytest_deselected(items=once)
        items[:] = [item for item in items if item not in once]

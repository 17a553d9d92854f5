"""Apply migrations that a test makes, and watch the models of their state."""

import sys
from contextlib import contextmanager

from django.core.management import call_command
from django.db import connection, connections, migrations, models
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder

from django_cocobase_realtime.capture import signals
from django_cocobase_realtime.capture.triggers import by_triggers, is_installed, remove_named
from django_cocobase_realtime.capture.triggers.catalog import installed
from django_cocobase_realtime.declarations.collection import Collection
from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.models import LogEvent, Stream

APP = "migrated_app"
SOURCE = "from tests.support.migrating import made\n\nMigration = made({name!r})\n"

_operations = {}


def made(name):
    """Return the class of the migration with a name; called by its module."""
    attributes = {"operations": _operations[name], "dependencies": []}
    number = int(name)
    if number > 1:
        attributes["dependencies"] = [(APP, f"{number - 1:04}")]
    return type("Migration", (migrations.Migration,), attributes)


class Project:
    """A project whose app has the migrations of a test, one for each operation."""

    def __init__(self, folder):
        self._folder = folder
        self._count = 0

    def add(self, *operations):
        """Add a migration for each operation."""
        for operation in operations:
            self._count += 1
            name = f"{self._count:04}"
            _operations[name] = [operation]
            (self._folder / f"{name}.py").write_text(SOURCE.format(name=name))

    def remove_last(self):
        """Remove the last migration, which could not be applied."""
        name = f"{self._count:04}"
        self._count -= 1
        del _operations[name], sys.modules[f"{self._folder.name}.{name}"]
        (self._folder / f"{name}.py").unlink()

    def model(self, name):
        """Return a model in its last state."""
        loader = MigrationExecutor(connection).loader
        return loader.project_state(loader.graph.leaf_nodes()).apps.get_model(APP, name)

    def watch(self, **models):
        """Declare collections of models in their last state, as the project's new code does."""
        for name in registry.registered:
            registry.unregister(name)
        for name, label in models.items():
            registry.register(
                name, type(name, (Collection,), {"model": self.model(label), "capture": "triggers"})
            )
        signals.sync()

    def migrate(self, *arguments):
        """Run the command as a process of the project does."""
        call_command("migrate", *arguments, verbosity=0)


@contextmanager
def project(folder, settings):
    """Yield a project without models, and remove what its migrations made afterwards."""
    package = folder / "made_migrations"
    package.mkdir()
    (package / "__init__.py").write_text("")
    settings.MIGRATION_MODULES = {APP: package.name}
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {}}
    sys.path.insert(0, str(folder))
    try:
        yield Project(package)
    finally:
        sys.path.remove(str(folder))
        for name in registry.registered:
            registry.unregister(name)
        signals.sync()
        remove_named("default", installed("default"))
        MigrationRecorder(connection).migration_qs.filter(app=APP).delete()
        drop_tables()
        for name in [name for name in sys.modules if name.startswith(package.name)]:
            del sys.modules[name]
        _operations.clear()


def drop_tables():
    """Drop the tables of the app, which migrations may have renamed."""
    with connection.cursor() as cursor:
        tables = [t for t in connection.introspection.table_names(cursor) if t.startswith(APP)]
        cascade = "CASCADE" if connection.vendor == "postgresql" else ""
        if connection.vendor == "sqlite":
            cursor.execute("PRAGMA foreign_keys = OFF")
        for table in tables:
            cursor.execute(f'DROP TABLE "{table}" {cascade}')
        if connection.vendor == "sqlite":
            cursor.execute("PRAGMA foreign_keys = ON")


def epochs():
    """Return the epoch of each stream, which exists from now on."""
    for collection in registry.captured():
        Stream.objects.get_or_create(collection=collection.stream)
    return dict(Stream.objects.values_list("collection", "epoch"))


def events():
    """Return (stream, op) of each event in the log, in order."""
    return list(LogEvent.objects.order_by("id").values_list("collection", "op"))


def are_installed():
    """Return whether the triggers of all collections that need them are up to date."""
    return all(is_installed(collection) for collection in by_triggers())


@contextmanager
def second_connection():
    """Yield a cursor of another session in the same database."""
    other = connection.copy()
    try:
        with other.cursor() as cursor:
            yield cursor
    finally:
        other.close()


def execute(statements, cursor=None):
    """Execute SQL that the ORM does not see."""
    if cursor is not None:
        for statement in statements:
            cursor.execute(statement)
        return
    with connections["default"].cursor() as own_cursor:
        execute(statements, own_cursor)


# operations and statements

OPS = ["created", "updated", "deleted"]


def create(name="Thing", *fields, **options):
    """Return the operation that creates a model with a name and a number."""
    defaults = {"name": models.CharField(max_length=50), "number": models.IntegerField(default=1)}
    columns = {"id": models.BigAutoField(primary_key=True), **defaults, **dict(fields)}
    return migrations.CreateModel(name, list(columns.items()), options)


def field(model, name, field):
    return migrations.AddField(model, name, field)


def alter(model, name, field):
    return migrations.AlterField(model, name, field)


INSERT = "INSERT INTO {table} (name, number) VALUES ('a', 1)"
UPDATE = "UPDATE {table} SET name = 'b' WHERE name = 'a'"
DELETE = "DELETE FROM {table} WHERE name = 'b'"


def writes(table="migrated_app_thing", insert=INSERT, update=UPDATE, delete=DELETE):
    return [statement.format(table=table) for statement in (insert, update, delete)]


WRITES = writes()


class Between:
    """Writes between operations: by the process that migrates, and by another one."""

    def __init__(self, statements):
        self.statements = statements
        self.calls = 0
        self.count = 0

    @property
    def operation(self):
        return migrations.RunPython(self._write)

    def _write(self, apps, schema_editor):
        self.calls += 1
        for write in self._writers():
            write()
            self.count += 1

    def _writers(self):
        def elsewhere():
            with second_connection() as cursor:
                execute(self.statements, cursor)

        # the migration's own transaction must not lock what the other one writes
        others = [elsewhere] if connection.vendor == "postgresql" else []
        return [*others, lambda: execute(self.statements)]

"""System checks: every mistake in the setting, with a stable id and a hint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage
from django.core.exceptions import FieldDoesNotExist, ImproperlyConfigured
from django.db import connections, router
from django.utils.module_loading import import_string

from .collection import Collection, from_settings, trigger_name
from .conf import JWT_KEYS, LIMIT_NAMES, LOG_KEYS, OPTIONS, SETTING, Limits, conf
from .documents import is_secret_looking
from .registry import registry

ID = "cocobase_realtime"
CORE_LAYER = "channels_redis.core.RedisChannelLayer"
DAPHNE_MINIMUM = (4, 2, 3)
RATES = {name for name in LIMIT_NAMES if name.endswith("_rate")}


def _error(number: int, message: str, hint: str | None = None) -> CheckMessage:
    return checks.Error(message, hint=hint, id=f"{ID}.E{number:03}")


def _warning(number: int, message: str, hint: str | None = None) -> CheckMessage:
    return checks.Warning(message, hint=hint, id=f"{ID}.W{number:03}")


def first_problem() -> CheckMessage | None:
    """The first mistake that keeps collections from being watched; None where all hold."""
    return next((m for m in check_collections() if m.level >= checks.ERROR), None)


@checks.register("realtime")
def check_settings(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """All of it, in the order of the ids."""
    try:
        raw = conf.raw
    except ImproperlyConfigured as error:
        return [_error(1, str(error))]
    found: list[CheckMessage] = [
        _error(2, f"{SETTING} has an unknown key {key!r}.", f"Known keys are {list(OPTIONS)}.")
        for key in raw
        if key not in OPTIONS
    ]
    found += check_collections()
    if not found:
        found += check_unseen()
    for check in (_limits, _log, _jwt, _authenticators, _layer, _numbers, _daphne):
        found += check()
    return found


def check_collections() -> list[CheckMessage]:
    """Declarations of collections, in settings and as classes."""
    try:
        declared = conf.collections
    except ImproperlyConfigured as error:
        return [_error(1, str(error))]
    found: list[CheckMessage] = []
    for name in declared:
        if not isinstance(name, str) or not name:
            found.append(_error(3, f"{name!r} is no name for a collection.", "Use a string."))
        elif name in registry.registered:
            found.append(
                _error(
                    10,
                    f"Collection {name!r} is declared in {SETTING} and registered as a class.",
                    "Keep one of the two.",
                )
            )
        else:
            try:
                collection = from_settings(name, declared[name])
            except ImproperlyConfigured as error:
                found.append(_error(4, str(error)))
            else:
                found += _collection(name, collection)
    for name, cls in registry.registered.items():
        collection = cls()
        collection.__dict__["name"] = name
        found += _collection(name, collection)
    return found


def _collection(name: str, collection: Collection) -> Iterator[CheckMessage]:
    if not hasattr(collection, "model"):
        yield _error(4, f"Collection {name!r} names no model.", "Set its 'model'.")
        return
    try:
        model = collection.model_class
        meta = model._meta
    except (LookupError, ValueError, AttributeError):
        yield _error(
            5,
            f"Collection {name!r} names the model {collection.model!r}, which does not exist.",
            "Write it as 'app_label.Model', and see that the app is in INSTALLED_APPS.",
        )
        return
    if meta.abstract or (not meta.managed and meta.swapped):
        yield _error(5, f"Collection {name!r} names {meta.label}, which has no table.")
        return
    yield from _fields(name, collection)
    yield from _classes(name, collection)


def _fields(name: str, collection: Collection) -> Iterator[CheckMessage]:
    meta = collection.concrete_model._meta
    concrete = {field.name for field in meta.concrete_fields}
    for option in ("fields", "filters", "not_secret"):
        value = getattr(collection, option)
        if value is None:
            continue
        if isinstance(value, str) or not all(isinstance(item, str) for item in value):
            yield _error(4, f"Collection {name!r}: '{option}' must be a list of field names.")
            return
        serialized = option == "fields" and collection.serializer is not None
        for field in value:
            if not serialized and field.partition(".")[0] not in concrete:
                yield _error(
                    6,
                    f"Collection {name!r}: '{option}' names {field!r}, "
                    f"which is no field of {meta.label}.",
                    f"Its fields are {sorted(concrete)}.",
                )
    for option in ("fields", "filters"):
        for field in getattr(collection, option) or ():
            if is_secret_looking(field) and field not in collection.not_secret:
                yield _error(
                    7,
                    f"Collection {name!r}: '{option}' names {field!r}, which looks secret.",
                    "Leave it out, or name it in 'not_secret' if its value may leave the server.",
                )
    project_field = collection.project_field
    if project_field is not None:
        try:
            meta.get_field(project_field)
        except FieldDoesNotExist:
            yield _error(6, f"Collection {name!r}: 'project_field' {project_field!r} is no field.")


def _classes(name: str, collection: Collection) -> Iterator[CheckMessage]:
    for option in ("permission", "serializer"):
        value = getattr(collection, option)
        if isinstance(value, str):
            try:
                value = import_string(value)
            except ImportError as error:
                yield _error(
                    8,
                    f"Collection {name!r}: '{option}' {value!r} cannot be imported.",
                    str(error),
                )
                continue
        if option == "permission" and value is not None:
            methods = ("can_subscribe", "visible_to", "fields_for")
            if not any(callable(getattr(value, method, None)) for method in methods):
                yield _error(
                    9,
                    f"Collection {name!r}: 'permission' decides nothing.",
                    f"Give it one of {', '.join(methods)}.",
                )
        if option == "serializer" and value is not None and not callable(value):
            yield _error(8, f"Collection {name!r}: 'serializer' cannot be called.")
    if collection.durable is True:
        yield from _database(name, collection)
    if collection.capture not in ("signals", "triggers"):
        yield _error(4, f"Collection {name!r}: 'capture' must be 'signals' or 'triggers'.")
    elif collection.capture == "triggers":
        yield from _triggers(name, collection)
    if not all(isinstance(getattr(collection, flag), bool) for flag in ("durable", "track")):
        yield _error(4, f"Collection {name!r}: 'durable' and 'track' must be True or False.")


def _database(name: str, collection: Collection) -> Iterator[CheckMessage]:
    using = collection.database
    log = apps.get_model("cocobase_realtime", "LogEvent")
    if not router.allow_migrate_model(using, log):
        yield _error(
            15,
            f"Collection {name!r} lives in {using!r}, from which the routers keep the log.",
            "Let them migrate this app there, or set 'durable' to False.",
        )
    elif (reads := router.db_for_read(collection.model_class)) != using:
        yield _warning(
            16,
            f"Collection {name!r} is written to {using!r} and read from {reads!r}.",
            "Snapshots and the log are read where rows are written.",
        )


def _triggers(name: str, collection: Collection) -> Iterator[CheckMessage]:
    vendor = connections[collection.database].vendor
    if vendor != "postgresql":
        yield _error(
            11,
            f"Collection {name!r}: 'capture' by triggers needs PostgreSQL, not {vendor}.",
            "Use 'signals'.",
        )
    if collection.concrete_model._meta.parents:
        yield _error(
            12,
            f"Collection {name!r}: a multi-table model's rows are in several tables.",
            "Use 'signals'.",
        )
    if not collection.durable:
        yield _error(13, f"Collection {name!r}: triggers write the log; 'durable' must be True.")


@checks.register("realtime", checks.Tags.database)
def check_database(app_configs: Any = None, databases: Any = None, **kwargs: Any) -> list[Any]:
    """What only the database can tell: with ``check --database default``."""
    found: list[CheckMessage] = []
    if not databases or first_problem() is not None:
        return found
    for collection in registry:
        if collection.capture != "triggers" or collection.database not in databases:
            continue
        with connections[collection.database].cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_trigger WHERE tgname = %s", [trigger_name(collection.name)]
            )
            (count,) = cursor.fetchone()
        if not count:
            found.append(
                _warning(
                    14,
                    f"Collection {collection.name!r}: its trigger is not installed.",
                    "Run manage.py realtime_triggers install.",
                )
            )
    return found


def check_unseen() -> Iterator[CheckMessage]:
    """Models whose rows can change without a trace in the log."""
    plain, silent = set(), set()
    for collection in registry:
        if collection.capture == "triggers":
            continue
        model = collection.concrete_model
        rows = model._default_manager.get_queryset()
        if not getattr(rows, "captures_bulk_writes", False):
            plain.add(model._meta.label)
        for field in model._meta.concrete_fields:
            handler = getattr(field.remote_field, "on_delete", None)
            if handler is not None and type(handler).__name__ == "DatabaseOnDelete":
                silent.add(f"{model._meta.label}.{field.name}")
    if plain:
        yield checks.Info(
            f"Bulk writes to {', '.join(sorted(plain))} are not seen by clients.",
            hint="Use RealtimeManager, or capture = 'triggers' on PostgreSQL; saves are seen.",
            id=f"{ID}.I080",
        )
    if silent:
        yield _warning(
            81,
            f"The database itself changes rows through {', '.join(sorted(silent))}, unseen.",
            "Use Django's own on_delete, or capture = 'triggers'.",
        )


def _limits() -> Iterator[CheckMessage]:
    value = conf.raw.get("LIMITS", {})
    if not isinstance(value, dict):
        yield _error(20, f"{SETTING}['LIMITS'] must be a dictionary.")
        return
    for name, limit in value.items():
        if name not in LIMIT_NAMES:
            yield _error(20, f"There is no limit {name!r}.", f"Limits are {sorted(LIMIT_NAMES)}.")
        elif name in RATES:
            if not (
                isinstance(limit, tuple | list)
                and len(limit) == 2
                and all(isinstance(n, int | float) and n > 0 for n in limit)
            ):
                yield _error(21, f"Limit {name!r} must be (a second, burst), both above zero.")
        elif limit is None and getattr(Limits(), name) is None:
            continue
        elif isinstance(limit, bool) or not isinstance(limit, int | float) or limit <= 0:
            yield _error(21, f"Limit {name!r} must be a number above zero.")


def _log() -> Iterator[CheckMessage]:
    value = conf.raw.get("LOG", {})
    if not isinstance(value, dict) or set(value) - set(LOG_KEYS):
        yield _error(25, f"{SETTING}['LOG'] must be a dictionary of {sorted(LOG_KEYS)}.")
        return
    for name, number in value.items():
        if number is None and name != "POLL":
            continue
        if isinstance(number, bool) or not isinstance(number, int | float) or number <= 0:
            yield _error(26, f"{SETTING}['LOG'][{name!r}] must be a number above zero.")


def _jwt() -> Iterator[CheckMessage]:
    value = conf.raw.get("JWT")
    if value is None:
        return
    if not isinstance(value, dict):
        yield _error(30, f"{SETTING}['JWT'] must be a dictionary or None.")
        return
    for key in value:
        if key not in JWT_KEYS:
            yield _error(30, f"JWT has an unknown key {key!r}.", f"Known keys: {list(JWT_KEYS)}.")
    algorithms = value.get("ALGORITHMS", ["HS256"])
    if isinstance(algorithms, str) or not algorithms:
        yield _error(31, "JWT: ALGORITHMS must be a list of names.")
    elif any(str(name).lower() == "none" for name in algorithms):
        yield _error(31, "JWT: the algorithm 'none' signs nothing.", "Name those that you issue.")
    elif any(str(n).startswith("HS") for n in algorithms) and any(
        not str(n).startswith("HS") for n in algorithms
    ):
        yield _error(
            31,
            "JWT: ALGORITHMS mixes shared secrets and public keys.",
            "A public key must never be taken for a shared secret: name one kind.",
        )
    if bool(value.get("KEY")) == bool(value.get("JWKS_URL")):
        yield _error(32, "JWT needs either KEY or JWKS_URL.")
    elif value.get("KEY") and isinstance(value["KEY"], str) and len(value["KEY"]) < 32:
        yield _warning(33, "JWT: KEY is short.", "RFC 7518 asks HS256 for 32 bytes or more.")


def _authenticators() -> Iterator[CheckMessage]:
    value = conf.raw.get("AUTHENTICATORS", ())
    if isinstance(value, str):
        yield _error(40, f"{SETTING}['AUTHENTICATORS'] must be a list of dotted paths.")
        return
    for path in value:
        try:
            import_string(path)
        except ImportError as error:
            yield _error(40, f"Authenticator {path!r} cannot be imported.", str(error))


def _layer() -> Iterator[CheckMessage]:
    alias = conf.channel_layer
    layers = getattr(settings, "CHANNEL_LAYERS", {})
    if alias not in layers:
        yield _error(
            50,
            f"There is no channel layer {alias!r}: nothing would be delivered.",
            "Set CHANNEL_LAYERS; channels.layers.InMemoryChannelLayer is enough for one process.",
        )
        return
    backend = str(layers[alias].get("BACKEND", ""))
    if backend.endswith("InMemoryChannelLayer") and not settings.DEBUG:
        yield _warning(
            51,
            "The in-memory channel layer ends at its process.",
            "With several processes, use channels_redis.",
        )
    if backend == CORE_LAYER and _major("redis") >= 8:
        hosts = layers[alias].get("CONFIG", {}).get("hosts") or [None]
        if any(not isinstance(host, dict) or "socket_timeout" not in host for host in hosts):
            yield _warning(
                53,
                "redis-py 8 gives up an idle read when the core channel layer does.",
                "Give each host {'address': ..., 'socket_timeout': None}, or use the pubsub layer.",
            )
    if not apps.is_installed("channels"):
        yield _warning(52, "'channels' is not in INSTALLED_APPS.", "Add it.")


def _numbers() -> Iterator[CheckMessage]:
    numbers: dict[str, Callable[[Any], bool]] = {
        "HEARTBEAT": lambda n: n > 0,
        "REVOCATION_POLL": lambda n: 0 < n <= 5,
        "WORKERS": lambda n: n >= 1 and n == int(n),
    }
    for name, holds in numbers.items():
        value = conf.raw.get(name, OPTIONS[name].default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not holds(value):
            hint = "At most 5 seconds." if name == "REVOCATION_POLL" else None
            yield _error(60, f"{SETTING}[{name!r}] is {value!r}, which is out of bounds.", hint)
    for name in ("ALLOWED_ORIGINS", "TRUSTED_PROXIES"):
        value = conf.raw.get(name)
        if isinstance(value, str):
            yield _error(61, f"{SETTING}[{name!r}] must be a list, not a string.")


def _major(package: str) -> int:
    try:
        return int(version(package).partition(".")[0])
    except (PackageNotFoundError, ValueError):
        return 0


def _daphne() -> Iterator[CheckMessage]:
    if not apps.is_installed("daphne"):
        return
    try:
        installed = version("daphne")
    except PackageNotFoundError:
        return
    numbers = tuple(int(n) for n in installed.split(".")[:3] if n.isdigit())
    if numbers < DAPHNE_MINIMUM:
        minimum = ".".join(map(str, DAPHNE_MINIMUM))
        yield _warning(70, f"daphne {installed} has a known security hole.", f"Use >= {minimum}.")

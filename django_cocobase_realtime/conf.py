"""The project's ``COCOBASE_REALTIME`` setting as typed properties, read anew at each access.

Nothing is cached across settings: ``override_settings`` works, and importing this module
touches neither models nor settings. What is wrong in the setting is reported by ``checks``;
here a wrong value raises ``ImproperlyConfigured`` with the same sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured

SETTING = "COCOBASE_REALTIME"
DEFAULT_AUTHENTICATORS = (
    "django_cocobase_realtime.auth.api_key.ApiKeyAuthenticator",
    "django_cocobase_realtime.auth.jwt.JwtAuthenticator",
    "django_cocobase_realtime.auth.django_session.DjangoSessionAuthenticator",
)
Rate = tuple[float, int]
"""(per second, burst)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what one client may ask for. Bytes, seconds and counts; rates are `Rate`."""

    auth_timeout: float = 10
    auth_bytes: int = 4096
    message_bytes: int = 65536
    event_bytes: int = 262144
    subscriptions: int = 100
    rooms: int = 50
    name_bytes: int = 128
    queue_bytes: int = 1048576
    queue_messages: int = 1000
    unacked_events: int = 256
    replay_events: int = 1000
    replay_pages: int = 50
    snapshot_documents: int = 10000
    filter_clauses: int = 16
    filter_depth: int = 3
    filter_values: int = 100
    messages_rate: Rate = (20, 40)
    subscribe_rate: Rate = (5, 100)
    broadcast_rate: Rate = (10, 20)
    bad_requests_per_minute: int = 5
    failed_auths_per_minute: int = 10
    connections_per_user: int = 20
    connections_per_address: int = 100
    connections_per_process: int = 5000
    unauthenticated_per_address: int = 10
    idle_timeout: float | None = None
    state_bytes: int = 1024


@dataclass(frozen=True, slots=True)
class JwtSettings:
    """How JSON Web Tokens are verified (RFC 7519). ``key`` or ``jwks_url`` is set."""

    key: str | None = None
    jwks_url: str | None = None
    algorithms: tuple[str, ...] = ("HS256",)
    audience: str | tuple[str, ...] | None = None
    issuer: str | None = None
    user_claim: str = "sub"
    user_lookup: str | None = "pk"
    project_claim: str = "project"
    leeway: float = 0


@dataclass(frozen=True, slots=True)
class LogSettings:
    """How long events are kept, in seconds and in number a collection, and how often a process
    looks for new ones that no bell told of, in seconds. None keeps them for ever.
    """

    max_age: float | None = 86400
    max_events: int | None = 1_000_000
    poll: float = 1.0


@dataclass(frozen=True, slots=True)
class PresenceSettings:
    """Where it is known who is in which room, and for how long without a word, in seconds.

    ``backend``: "database", "memory" (one process), "redis", or a dotted path. ``url`` of Redis,
    None for the channel layer's. ``grace``: how long a user whose connection was lost is still
    there. ``lease``: how long the members of a server that was killed are.
    """

    backend: str = "database"
    url: str | None = None
    grace: float = 10
    lease: float = 18


@dataclass(frozen=True, slots=True)
class Option:
    """One key of the setting: its default and what it is for (the reference is held to this)."""

    default: Any
    about: str = field(compare=False, default="")


OPTIONS: dict[str, Option] = {
    "COLLECTIONS": Option({}, "Collection name to model label or to a mapping of options."),
    "ROOMS": Option({}, "Pattern of room names to a mapping of options."),
    "PRESENCE": Option({}, "Where it is known who is in which room."),
    "JWT": Option(None, "How JSON Web Tokens are verified; None accepts no JWT."),
    "LIMITS": Option({}, "Overrides of single limits."),
    "LOG": Option({}, "How long changes are kept, and how often new ones are looked for."),
    "AUTHENTICATORS": Option(DEFAULT_AUTHENTICATORS, "Dotted paths, asked in this order."),
    "ALLOWED_ORIGINS": Option(None, "Origins that may connect; None takes ALLOWED_HOSTS."),
    "TRUSTED_PROXIES": Option((), "Addresses or networks whose X-Forwarded-For is believed."),
    "CHANNEL_LAYER": Option("default", "Alias of the channel layer in CHANNEL_LAYERS."),
    "HEARTBEAT": Option(25, "Seconds between pings that clients are asked for."),
    "REVOCATION_POLL": Option(2.0, "Seconds between looks at live credentials."),
    "WORKERS": Option(4, "Threads a process for permissions and authentication."),
}
JWT_KEYS = {f.name.upper(): f.name for f in fields(JwtSettings)}
LOG_KEYS = {f.name.upper(): f.name for f in fields(LogSettings)}
PRESENCE_KEYS = {f.name.upper(): f.name for f in fields(PresenceSettings)}
LIMIT_NAMES = {f.name for f in fields(Limits)}


class Conf:
    """Live view of the setting; use the module's ``conf``."""

    @property
    def raw(self) -> Mapping[str, Any]:
        """The setting as the project wrote it, an empty mapping where it did not."""
        value = getattr(django_settings, SETTING, None)
        if value is None:
            return {}
        if isinstance(value, dict):
            return value
        if not isinstance(value, Mapping):
            raise ImproperlyConfigured(f"{SETTING} must be a dictionary.")
        return value

    def _option(self, name: str) -> Any:
        return self.raw.get(name, OPTIONS[name].default)

    @property
    def collections(self) -> Mapping[str, Any]:
        """Collection name to declaration, not yet resolved: see ``registry``."""
        value = self._option("COLLECTIONS")
        if not isinstance(value, Mapping):
            raise ImproperlyConfigured(f"{SETTING}['COLLECTIONS'] must be a dictionary.")
        return value

    @property
    def jwt(self) -> JwtSettings | None:
        """None where the project takes no JWT."""
        value = self._option("JWT")
        if not value:
            return None
        if not isinstance(value, Mapping):
            raise ImproperlyConfigured(f"{SETTING}['JWT'] must be a dictionary.")
        unknown = set(value) - set(JWT_KEYS)
        if unknown:
            raise ImproperlyConfigured(f"{SETTING}['JWT'] has unknown keys: {sorted(unknown)}.")
        known = {JWT_KEYS[key]: item for key, item in value.items()}
        known["algorithms"] = tuple(known.get("algorithms", ("HS256",)))
        if isinstance(known.get("audience"), list):
            known["audience"] = tuple(known["audience"])
        return JwtSettings(**known)

    @property
    def log(self) -> LogSettings:
        """How the log is kept."""
        value = self._option("LOG")
        if not isinstance(value, Mapping) or set(value) - set(LOG_KEYS):
            known = sorted(LOG_KEYS)
            raise ImproperlyConfigured(f"{SETTING}['LOG'] must be a dictionary of {known}.")
        return LogSettings(**{LOG_KEYS[key]: item for key, item in value.items()})

    @property
    def rooms(self) -> Mapping[str, Any]:
        """Pattern of room names to options, not yet resolved: see ``room``."""
        value = self._option("ROOMS")
        if not isinstance(value, Mapping):
            raise ImproperlyConfigured(f"{SETTING}['ROOMS'] must be a dictionary.")
        return value

    @property
    def presence(self) -> PresenceSettings:
        """Where presence is kept."""
        value = self._option("PRESENCE")
        if not isinstance(value, Mapping) or set(value) - set(PRESENCE_KEYS):
            known = sorted(PRESENCE_KEYS)
            raise ImproperlyConfigured(f"{SETTING}['PRESENCE'] must be a dictionary of {known}.")
        return PresenceSettings(**{PRESENCE_KEYS[key]: item for key, item in value.items()})

    @property
    def limits(self) -> Limits:
        """The defaults with the project's overrides."""
        value = self._option("LIMITS")
        if not isinstance(value, dict) and not isinstance(value, Mapping):
            raise ImproperlyConfigured(f"{SETTING}['LIMITS'] must be a dictionary.")
        key = id(value), tuple(value.items())
        if key != self._limits_key:
            unknown = set(value) - LIMIT_NAMES
            if unknown:
                raise ImproperlyConfigured(f"Unknown limits: {sorted(unknown)}.")
            self._limits, self._limits_key = Limits(**value), key
        return self._limits

    _limits = Limits()
    _limits_key: Any = None

    @property
    def authenticators(self) -> tuple[str, ...]:
        """Dotted paths of the authenticators, in the order in which they are asked."""
        return tuple(self._option("AUTHENTICATORS"))

    @property
    def allowed_origins(self) -> tuple[str, ...] | None:
        """None: the hosts of ALLOWED_HOSTS."""
        value = self._option("ALLOWED_ORIGINS")
        return None if value is None else tuple(value)

    @property
    def trusted_proxies(self) -> tuple[str, ...]:
        """Addresses or CIDR networks of proxies that set X-Forwarded-For."""
        return tuple(self._option("TRUSTED_PROXIES"))

    @property
    def channel_layer(self) -> str:
        """Alias in CHANNEL_LAYERS."""
        return str(self._option("CHANNEL_LAYER"))

    @property
    def heartbeat(self) -> int:
        """Seconds between pings that clients are asked for."""
        return int(self._option("HEARTBEAT"))

    @property
    def revocation_poll(self) -> float:
        """Seconds between looks at live credentials."""
        return float(self._option("REVOCATION_POLL"))

    @property
    def workers(self) -> int:
        """Threads a process for permissions and authentication."""
        return int(self._option("WORKERS"))


conf = Conf()

"""The project's ``COCOBASE_REALTIME`` setting as typed properties, read at each access.

``override_settings`` works, because no value is cached for longer than the setting stays the
same. Importing this module accesses neither models nor settings.

The keys are described in ``options``. The system checks use these descriptions to list all mistakes
(`Conf.problems`). A property raises ``ImproperlyConfigured`` with the same text if its value
cannot be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured

from .options import (
    OPTIONS,
    SETTING,
    JwtSettings,
    Limits,
    LogSettings,
    PresenceSettings,
    Problem,
    find_problems,
)

S = TypeVar("S")


class Conf:
    """The keys of the setting as properties. Use the instance ``conf`` of this module."""

    def __init__(self) -> None:
        # by key of the setting: the dataclass made from its nested dictionary, and before it that
        # dictionary's id and items, by which a change is noticed
        self._cache: dict[str, tuple[tuple[int, tuple[Any, ...]], Any]] = {}

    @property
    def raw(self) -> Mapping[str, Any]:
        """The setting as the project wrote it, or an empty mapping."""
        value = getattr(django_settings, SETTING, None)
        if value is None:
            return {}
        if isinstance(value, dict | Mapping):
            return value
        raise ImproperlyConfigured(f"{SETTING} must be a dictionary.")

    def problems(self, name: str) -> list[Problem]:
        """Return the mistakes in the value of a key of the setting."""
        try:
            value = self._value(name)
        except ImproperlyConfigured as error:
            return [Problem(None, str(error))]
        return list(find_problems(name, value))

    def _value(self, name: str) -> Any:
        return self.raw.get(name, OPTIONS[name].default)

    def _shaped(self, name: str) -> Any:
        """Return the value of a key. Raises ``ImproperlyConfigured`` if it cannot be read."""
        value = self._value(name)
        shape = OPTIONS[name].shape
        if not shape.allows(value):
            raise ImproperlyConfigured(self.problems(name)[0].sentences)
        return value

    def _dataclass(self, name: str, cls: type[S]) -> S:
        """Return the nested dictionary of a key as a dataclass, which is cached until it changes.

        Raises ``ImproperlyConfigured`` if it cannot be read.
        """
        value = self._value(name)
        source = (id(value), tuple(value.items()) if isinstance(value, dict | Mapping) else ())
        cached = self._cache.get(name)
        if cached is not None and cached[0] == source:
            result: S = cached[1]
            return result
        for problem in find_problems(name, value):
            if problem.key is None:
                raise ImproperlyConfigured(problem.sentences)
        keys = OPTIONS[name].keys
        assert keys is not None
        result = cls(
            **{
                keys[key].name: tuple(item) if isinstance(item, list) else item
                for key, item in value.items()
            }
        )
        self._cache[name] = source, result
        return result

    @property
    def collections(self) -> Mapping[str, Any]:
        """Declarations by collection name, as in the setting; see ``declarations.registry``."""
        value: Mapping[str, Any] = self._shaped("COLLECTIONS")
        return value

    @property
    def rooms(self) -> Mapping[str, Any]:
        """Declarations by pattern of room names, as in the setting."""
        value: Mapping[str, Any] = self._shaped("ROOMS")
        return value

    @property
    def jwt(self) -> JwtSettings | None:
        """How JSON Web Tokens are verified; None if the project accepts none."""
        if not self._value("JWT"):
            return None
        return self._dataclass("JWT", JwtSettings)

    @property
    def log(self) -> LogSettings:
        """How long the change log keeps events."""
        return self._dataclass("LOG", LogSettings)

    @property
    def presence(self) -> PresenceSettings:
        """Where room membership is stored."""
        return self._dataclass("PRESENCE", PresenceSettings)

    @property
    def limits(self) -> Limits:
        """The default limits with the project's overrides."""
        return self._dataclass("LIMITS", Limits)

    @property
    def authenticators(self) -> tuple[str, ...]:
        """Dotted paths of authenticators, in the order in which they are tried."""
        return tuple(self._shaped("AUTHENTICATORS"))

    @property
    def member(self) -> str | None:
        """Dotted path of the function that returns the name of a member; None for the default."""
        return None if (path := self._value("MEMBER")) is None else str(path)

    @property
    def allowed_origins(self) -> tuple[str, ...] | None:
        """Origins that may connect; None for ALLOWED_HOSTS."""
        value = self._shaped("ALLOWED_ORIGINS")
        return None if value is None else tuple(value)

    @property
    def trusted_proxies(self) -> tuple[str, ...]:
        """Addresses or CIDR networks of proxies that set X-Forwarded-For."""
        return tuple(self._shaped("TRUSTED_PROXIES"))

    @property
    def capture(self) -> str:
        """How changes are captured, unless a collection says otherwise."""
        return str(self._value("CAPTURE"))

    @property
    def channel_layer(self) -> str:
        """Alias of the channel layer in CHANNEL_LAYERS."""
        return str(self._value("CHANNEL_LAYER"))

    @property
    def heartbeat(self) -> int:
        """Seconds between the pings of a client."""
        return int(self._value("HEARTBEAT"))

    @property
    def metrics_token(self) -> str | None:
        """Token with which the metrics are read; None for no token."""
        value = self._shaped("METRICS_TOKEN")
        return None if value is None else str(value)

    @property
    def revocation_poll(self) -> float:
        """Seconds between checks of live credentials."""
        return float(self._value("REVOCATION_POLL"))

    @property
    def drain(self) -> float:
        """Seconds over which connections are closed on SIGTERM."""
        return float(self._value("DRAIN"))

    @property
    def workers(self) -> int:
        """Threads per process for permissions and authentication."""
        return int(self._value("WORKERS"))


conf = Conf()

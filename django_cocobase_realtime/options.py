"""The keys of the project's ``COCOBASE_REALTIME`` setting: defaults, meanings and valid values.

Each key of the setting is described by an `Option`, and the keys of a nested dictionary by the
fields of a dataclass. The reference documentation is tested against these descriptions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, NamedTuple

SETTING = "COCOBASE_REALTIME"
DEFAULT_AUTHENTICATORS = (
    "django_cocobase_realtime.auth.api_key.ApiKeyAuthenticator",
    "django_cocobase_realtime.auth.jwt.JwtAuthenticator",
    "django_cocobase_realtime.auth.django_session.DjangoSessionAuthenticator",
)
MAX_REVOCATION_POLL = 5  # seconds; the highest value that REVOCATION_POLL may have
# highest value of the limits in `FRAME_LIMITS`, since servers refuse frames of more than 1 MiB
MAX_EVENT_BYTES, FRAME_LIMITS = 512 * 1024, ("message_bytes", "event_bytes", "state_bytes")
MIN_TOKEN_LENGTH = 20  # characters of METRICS_TOKEN
MAX_DRAIN = 600  # seconds; the highest value that DRAIN may have
# requests per second, and how many may come at once
Rate = tuple[float, int]


class Rule(NamedTuple):
    """A condition for a value of the setting."""

    # completes the sentence "It must be ..."
    text: str
    # returns whether a value meets the condition
    allows: Callable[[Any], bool]


class Problem(NamedTuple):
    """A mistake in the setting."""

    # the key whose value is out of bounds; None if the whole value cannot be read
    key: str | None
    message: str
    hint: str | None = None

    @property
    def sentences(self) -> str:
        """The message and the hint."""
        return self.message if self.hint is None else f"{self.message} {self.hint}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_rate(value: Any) -> bool:
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(_is_number(number) and number > 0 for number in value)
    )


ANYTHING = Rule("anything", lambda value: True)
DICTIONARY = Rule("a dictionary", lambda value: isinstance(value, Mapping))
DICTIONARY_OR_NONE = Rule(
    "a dictionary or None", lambda value: value is None or isinstance(value, Mapping)
)
LIST = Rule("a list, not a string", lambda value: not isinstance(value, str))
STRING = Rule("a string", lambda value: isinstance(value, str))
STRING_OR_NONE = Rule("a string or None", lambda value: value is None or isinstance(value, str))
TOKEN = Rule(
    f"a string of {MIN_TOKEN_LENGTH} characters or more, or None",
    lambda value: value is None or (isinstance(value, str) and len(value) >= MIN_TOKEN_LENGTH),
)
SECONDS = Rule("a number of seconds", _is_number)
POSITIVE = Rule("a number above zero", lambda value: _is_number(value) and value > 0)
POSITIVE_OR_NONE = Rule(
    "a number above zero, or None", lambda value: value is None or POSITIVE.allows(value)
)
THREADS = Rule("a whole number, 1 or more", lambda value: POSITIVE.allows(value) and value % 1 == 0)
POLL_INTERVAL = Rule(
    f"a number above zero and at most {MAX_REVOCATION_POLL}",
    lambda value: POSITIVE.allows(value) and value <= MAX_REVOCATION_POLL,
)
DRAIN_SECONDS = Rule(
    f"a number of seconds from 0 to {MAX_DRAIN}",
    lambda value: _is_number(value) and 0 <= value <= MAX_DRAIN,
)
CAPTURE_MODE = Rule("'signals' or 'triggers'", lambda value: value in ("signals", "triggers"))
RATE = Rule("a pair (per second, burst), both numbers above zero", _is_rate)


def _key(default: Any, about: str, bounds: Rule = ANYTHING) -> Any:
    """Describe one key of a nested dictionary: a field of a dataclass."""
    return field(default=default, metadata={"about": about, "bounds": bounds})


def _limit(default: Any, about: str, bounds: Rule = POSITIVE) -> Any:
    """Describe one limit: a key whose value is a number above zero, unless ``bounds`` is given."""
    return _key(default, about, bounds)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what one client may ask for; per connection unless described otherwise."""

    auth_timeout: float = _limit(10, "Seconds in which the auth message must arrive.")
    auth_bytes: int = _limit(4096, "Bytes of a frame before authentication.")
    message_bytes: int = _limit(65536, "Bytes of a frame after authentication.")
    event_bytes: int = _limit(262144, "Bytes of an event; a larger one is sent without its data.")
    subscriptions: int = _limit(100, "Subscriptions.")
    rooms: int = _limit(50, "Joined rooms.")
    name_bytes: int = _limit(128, "Bytes of a name.")
    queue_bytes: int = _limit(1048576, "Bytes queued for a client that does not read.")
    queue_messages: int = _limit(1000, "Frames queued for a client that does not read.")
    unacked_events: int = _limit(256, "Events in flight to a client that acknowledges them.")
    replay_events: int = _limit(1000, "Changes per page of a replay.")
    replay_pages: int = _limit(50, "Pages of a replay; beyond, the client must fetch again.")
    snapshot_documents: int = _limit(10000, "Documents of a snapshot.")
    window_bytes: int = _limit(
        8 * 1024 * 1024,
        "Bytes of rows and groups that the server holds for live queries of one user.",
    )
    groups: int = _limit(1000, "Groups of an aggregate.")
    set_keys: int = _limit(10000, "Keys that a queryset in `visible_to` may return.")
    derived_events: int = _limit(
        1000, "Documents that are updated when related rows change; beyond, clients load again."
    )
    filter_clauses: int = _limit(16, "Keys of a filter.")
    filter_depth: int = _limit(3, "Nesting levels of a filter.")
    filter_values: int = _limit(100, "Values of one key of a filter.")
    filter_cost: float = _limit(
        8000, "Estimated microseconds of an event for a client's filters in a process."
    )
    messages_rate: tuple[float, int] = _limit(
        (20, 40), "Requests without a rate of their own.", RATE
    )
    subscribe_rate: tuple[float, int] = _limit((5, 100), "Subscribe requests.", RATE)
    broadcast_rate: tuple[float, int] = _limit((10, 20), "Broadcast requests.", RATE)
    http_rate: tuple[float, int] = _limit((20, 50), "HTTP requests, per address and user.", RATE)
    bad_requests_per_minute: int = _limit(5, "Malformed requests.")
    failed_auths_per_minute: int = _limit(10, "Failed authentications, per address.")
    connections_per_user: int = _limit(20, "Connections, per user and project in a process.")
    connections_per_address: int = _limit(100, "Connections, per address in a process.")
    connections_per_process: int = _limit(5000, "Connections, per process.")
    unauthenticated_per_address: int = _limit(10, "Unauthenticated connections, per address.")
    idle_timeout: float | None = _limit(
        None, "Seconds without a frame; None for no timeout.", POSITIVE_OR_NONE
    )
    state_bytes: int = _limit(1024, "Bytes of a member's state.")

    def __post_init__(self) -> None:
        """Use no higher value than possible, even if the system checks were not run."""
        for name in FRAME_LIMITS:
            if _is_number(value := getattr(self, name)):
                object.__setattr__(self, name, min(value, MAX_EVENT_BYTES))


@dataclass(frozen=True, slots=True)
class JwtSettings:
    """How JSON Web Tokens are verified (RFC 7519). Either ``key`` or ``jwks_url`` is set."""

    key: str | None = _key(None, "Shared secret, or a public key in PEM format.")
    jwks_url: str | None = _key(None, "URL of the public keys, instead of KEY.")
    algorithms: tuple[str, ...] = _key(("HS256",), "Accepted signature algorithms.")
    audience: str | tuple[str, ...] | None = _key(None, "Required 'aud' claim.")
    issuer: str | None = _key(None, "Required 'iss' claim.")
    user_claim: str = _key("sub", "Claim that identifies the user.")
    user_lookup: str | None = _key(
        "pk", "User field that the claim is looked up in; None for tokens without Django users."
    )
    project_claim: str = _key("project", "Claim that names the project.")
    leeway: float = _key(0, "Seconds of clock difference that are tolerated.")


@dataclass(frozen=True, slots=True)
class LogSettings:
    """How long the change log keeps events, and how often it is polled."""

    max_age: float | None = _key(
        86400, "Seconds that an event is kept; None for no limit.", POSITIVE_OR_NONE
    )
    max_events: int | None = _key(
        1_000_000, "Events kept per collection; None for no limit.", POSITIVE_OR_NONE
    )
    room_max_age: float | None = _key(
        2_592_000, "Seconds that the history of an unused room is kept.", POSITIVE_OR_NONE
    )
    poll: float = _key(1.0, "Seconds between polls for events that were not announced.", POSITIVE)


@dataclass(frozen=True, slots=True)
class PresenceSettings:
    """Where room membership is stored, and how long it outlasts a lost connection."""

    backend: str = _key(
        "database", "'database', 'redis', 'memory' (one process), or a dotted path.", STRING
    )
    url: str | Mapping[str, Any] | None = _key(
        None,
        "URL of Redis, or a dictionary as in hosts of a channel layer; None for that layer's.",
    )
    grace: float = _key(
        10, "Seconds that a user stays a member after the connection was lost.", SECONDS
    )
    lease: float = _key(18, "Seconds that members of a killed server stay.", SECONDS)


@dataclass(frozen=True, slots=True)
class Option:
    """A key of the setting. The reference documentation is tested against these."""

    default: Any
    about: str
    # what the value must be so that it can be read at all
    shape: Rule = ANYTHING
    # what the value must be, beyond its shape
    bounds: Rule = ANYTHING
    # if the value is a nested dictionary: its keys, with the fields of the dataclass made of it
    keys: Mapping[str, Field[Any]] | None = None


LIMIT_KEYS = {f.name: f for f in fields(Limits)}
JWT_KEYS = {f.name.upper(): f for f in fields(JwtSettings)}
LOG_KEYS = {f.name.upper(): f for f in fields(LogSettings)}
PRESENCE_KEYS = {f.name.upper(): f for f in fields(PresenceSettings)}
OPTIONS: dict[str, Option] = {
    "COLLECTIONS": Option({}, "Collection name to model label or options.", shape=DICTIONARY),
    "ROOMS": Option({}, "Pattern of room names to options.", shape=DICTIONARY),
    "PRESENCE": Option(
        {}, "Where room membership is stored.", shape=DICTIONARY, keys=PRESENCE_KEYS
    ),
    "JWT": Option(
        None,
        "How JSON Web Tokens are verified; None to accept none.",
        shape=DICTIONARY_OR_NONE,
        keys=JWT_KEYS,
    ),
    "LIMITS": Option({}, "Overrides of single limits.", shape=DICTIONARY, keys=LIMIT_KEYS),
    "LOG": Option({}, "How long changes are kept.", shape=DICTIONARY, keys=LOG_KEYS),
    "AUTHENTICATORS": Option(
        DEFAULT_AUTHENTICATORS, "Dotted paths, tried in this order.", shape=LIST
    ),
    "MEMBER": Option(None, "Function that returns the name of a member.", bounds=STRING_OR_NONE),
    "ALLOWED_ORIGINS": Option(
        None, "Origins that may connect; None for ALLOWED_HOSTS.", shape=LIST
    ),
    "TRUSTED_PROXIES": Option(
        (), "Addresses or networks whose X-Forwarded-For is trusted.", shape=LIST
    ),
    "CAPTURE": Option(
        "signals",
        "How changes are captured, 'signals' or 'triggers', unless a collection says otherwise.",
        bounds=CAPTURE_MODE,
    ),
    "CHANNEL_LAYER": Option("default", "Alias of the channel layer in CHANNEL_LAYERS."),
    "HEARTBEAT": Option(25, "Seconds between the pings of a client.", bounds=POSITIVE),
    "METRICS_TOKEN": Option(
        None, "Bearer token with which GET metrics is read; None for no token.", shape=TOKEN
    ),
    "REVOCATION_POLL": Option(
        2.0, "Seconds between checks of live credentials.", bounds=POLL_INTERVAL
    ),
    "DRAIN": Option(
        8.0, "Seconds over which connections are closed on SIGTERM.", bounds=DRAIN_SECONDS
    ),
    "WORKERS": Option(4, "Threads per process for permissions and authentication.", bounds=THREADS),
}


def find_problems(name: str, value: Any) -> Iterator[Problem]:
    """Yield each mistake in the value of a key of the setting."""
    option, path = OPTIONS[name], f"{SETTING}[{name!r}]"
    if not option.shape.allows(value):
        hint = None if option.keys is None else f"Its keys are {list(option.keys)}."
        yield Problem(None, f"{path} must be {option.shape.text}.", hint)
    elif not option.bounds.allows(value):
        yield Problem(name, f"{path} must be {option.bounds.text}.")
    elif option.keys is not None and value is not None:
        for key, item in value.items():
            if key not in option.keys:
                hint = f"Known keys are {list(option.keys)}."
                yield Problem(None, f"{path} has an unknown key {key!r}.", hint)
                continue
            bounds: Rule = option.keys[key].metadata["bounds"]
            if not bounds.allows(item):
                yield Problem(key, f"{path}[{key!r}] must be {bounds.text}.")

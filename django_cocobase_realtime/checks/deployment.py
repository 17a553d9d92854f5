"""Checks of what only matters in production: part of ``manage.py check --deploy``."""

from __future__ import annotations

import filecmp
from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.apps import apps
from django.conf import settings
from django.contrib.staticfiles import finders
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured, SuspiciousFileOperation
from django.db import connections
from django.urls import NoReverseMatch, get_resolver

from ..conf import conf
from .base import info, warning

# ``app_name`` in `urls`
APP_NAME = "realtime"
# static file of the JavaScript client
SCRIPT = "django_cocobase_realtime/realtime.js"
# prefix lengths of networks, by version of IP, below which a public network is no list of proxies
MIN_PREFIX = {4: 8, 6: 16}
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
# ports of PgBouncer and of poolers of PostgreSQL services that behave like it in transaction mode
POOLER_PORTS = ("6432", "6543")
# parts of the names of hosts of such poolers
POOLER_NAMES = ("pgbouncer", "pooler")


def check_process_layer() -> Iterator[CheckMessage]:
    """Check that the channel layer reaches other processes."""
    layer = getattr(settings, "CHANNEL_LAYERS", {}).get(conf.channel_layer, {})
    if str(layer.get("BACKEND", "")).endswith("InMemoryChannelLayer"):
        yield warning(
            51,
            "The in-memory channel layer does not reach other processes.",
            "Use channels_redis. If there is only one process, and no other one broadcasts to "
            "rooms, silence cocobase_realtime.W051.",
        )


def check_proxies() -> Iterator[CheckMessage]:
    """Check that the address of a client is neither that of a proxy nor of the client's choice."""
    if conf.problems("TRUSTED_PROXIES"):
        return
    if not conf.trusted_proxies:
        signs = [
            name
            for name in ("SECURE_PROXY_SSL_HEADER", "USE_X_FORWARDED_HOST", "USE_X_FORWARDED_PORT")
            if getattr(settings, name, None)
        ]
        if signs:
            yield warning(
                72,
                f"{signs[0]} is set, so there is a proxy, but TRUSTED_PROXIES is empty.",
                "Without it, all clients have the address of the proxy, and share the limits of "
                "one address. Set it to the addresses or networks of your proxies.",
            )
    for proxy in conf.trusted_proxies:
        try:
            network = ip_network(proxy, strict=False)
        except ValueError:
            continue  # E074
        if network.prefixlen < MIN_PREFIX[network.version] and not network.is_private:
            yield warning(
                73,
                f"TRUSTED_PROXIES contains {proxy!r}, which is a large part of the internet.",
                "Every client can choose its own address in X-Forwarded-For, and so evade the "
                "limits of an address. Name only the addresses or networks of your proxies.",
            )


def check_key_provider() -> Iterator[CheckMessage]:
    """Check that tokens of an identity provider cannot be forged, or be those of another site."""
    if conf.problems("JWT") or (jwt := conf.jwt) is None or not jwt.jwks_url:
        return
    url = urlsplit(jwt.jwks_url)
    if url.scheme != "https" and url.hostname not in LOCAL_HOSTS:
        yield warning(
            75,
            f"JWT: JWKS_URL {jwt.jwks_url!r} is not encrypted.",
            "A program between the two can replace the keys, and so sign tokens of every user. "
            "Use https.",
        )
    if not jwt.audience:
        yield warning(
            79,
            "JWT: JWKS_URL names an identity provider, but AUDIENCE is not set.",
            "Tokens that the provider has issued for other applications are accepted. Set "
            "AUDIENCE to the name by which the provider knows this one.",
        )


def check_poolers() -> Iterator[CheckMessage]:
    """Check that nothing depends on the session behind PgBouncer in transaction mode."""
    databases: Mapping[str, Mapping[str, Any]] = connections.settings
    for using, database in databases.items():
        if "postg" not in str(database.get("ENGINE", "")) or not _is_pooler(database):
            continue
        options: Mapping[str, Any] = database.get("OPTIONS") or {}
        problems = []
        if not database.get("DISABLE_SERVER_SIDE_CURSORS"):
            problems.append("DISABLE_SERVER_SIDE_CURSORS should be True")
        problems += [
            f"{name!r} should not be in OPTIONS"
            for name in ("assume_role", "options", "prepare_threshold")
            if options.get(name) is not None
        ]
        if problems:
            yield warning(
                76,
                f"Database {using!r} seems to be behind PgBouncer: {'; '.join(problems)}.",
                "In transaction mode, the next transaction may have another connection, without "
                "the cursors, settings and statements of this one. In session mode, silence "
                "cocobase_realtime.W076.",
            )


def _is_pooler(database: Mapping[str, Any]) -> bool:
    host = str(database.get("HOST") or "")
    return str(database.get("PORT") or "") in POOLER_PORTS or any(
        name in host for name in POOLER_NAMES
    )


def check_collected_script() -> Iterator[CheckMessage]:
    """Check that the JavaScript client among the collected static files is the installed one."""
    if not apps.is_installed("django.contrib.staticfiles") or not settings.STATIC_ROOT:
        return
    root = Path(settings.STATIC_ROOT)
    try:
        source = finders.find(SCRIPT)
    except (ImproperlyConfigured, SuspiciousFileOperation):
        return
    if not source or not root.is_dir():
        return
    collected = root / SCRIPT
    if not collected.is_file() or not filecmp.cmp(source, collected, shallow=False):
        state = "not the one of the installed version" if collected.is_file() else "missing"
        yield warning(
            77,
            f"The JavaScript client in STATIC_ROOT is {state}.",
            "Run manage.py collectstatic after each upgrade.",
        )


def check_health_urls() -> Iterator[CheckMessage]:
    """Check that load balancers and restarts can ask whether a process is ready."""
    try:
        included = APP_NAME in get_resolver().app_dict
    except (ImportError, NoReverseMatch, ImproperlyConfigured, AttributeError):
        return  # Django's own checks report it
    if not included:
        yield info(
            78,
            "The URLs of this app are not included: there are no health checks.",
            'Add path("realtime/", include("django_cocobase_realtime.urls")) to urls.py.',
        )

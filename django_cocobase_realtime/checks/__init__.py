"""System checks, which report mistakes in the setting and in declarations.

Each kind of mistake has a stable id and a hint.
"""

from __future__ import annotations

from typing import Any

from django.core import checks
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured

from ..conf import conf
from ..options import OPTIONS, SETTING
from .base import error
from .collections import check_collections, check_installed_triggers
from .databases import (
    check_announcements,
    check_connection_pools,
    check_database_vendors,
    check_numbering,
    check_presence_database,
    check_tenants,
    check_unseen_writes,
    is_check_command,
)
from .deployment import (
    check_collected_script,
    check_health_urls,
    check_key_provider,
    check_poolers,
    check_process_layer,
    check_proxies,
)
from .environment import (
    check_channel_layer,
    check_daphne,
    check_layer_hosts,
    check_message_sizes,
    check_runserver,
)
from .handlers import check_handlers
from .indexes import check_indexes
from .permissions import check_moments
from .rooms import check_presence, check_rooms
from .settings import (
    check_authenticators,
    check_jwt,
    check_limits,
    check_log,
    check_member,
    check_single_values,
)
from .visitors import check_visitors


def first_problem() -> CheckMessage | None:
    """Return the first error in the declarations of collections, or None."""
    return next((m for m in check_collections() if m.level >= checks.ERROR), None)


@checks.register("realtime")
def check_settings(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Run all checks but those of the other functions of this module."""
    try:
        raw = conf.raw
    except ImproperlyConfigured as problem:
        return [error(1, str(problem))]
    messages = [
        error(2, f"{SETTING} has an unknown key {key!r}.", f"Known keys are {list(OPTIONS)}.")
        for key in raw
        if key not in OPTIONS
    ]
    messages += check_collections()
    if not messages:
        messages += check_database_vendors()
        messages += check_moments()
        messages += check_handlers()
    for check in (
        check_limits,
        check_log,
        check_jwt,
        check_authenticators,
        check_member,
        check_channel_layer,
        check_layer_hosts,
        check_runserver,
        check_single_values,
        check_daphne,
        check_message_sizes,
        check_rooms,
        check_presence,
        check_presence_database,
        check_connection_pools,
        check_tenants,
    ):
        messages += check()
    if all(message.level < checks.ERROR for message in messages):
        messages += check_visitors()
    return messages


@checks.register("realtime")
def check_writes(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Name the writes that are not seen; only in ``manage.py check``.

    They are no mistakes, and would be repeated by every command that runs the checks.
    """
    if not is_check_command() or first_problem() is not None:
        return []
    return list(check_unseen_writes())


@checks.register("realtime")
def check_orders(
    app_configs: Any = None, databases: Any = None, **kwargs: Any
) -> list[CheckMessage]:
    """Name the indexes that are missing for orders; only in ``manage.py check``."""
    if not is_check_command() or first_problem() is not None:
        return []
    return list(check_indexes(databases or ()))


@checks.register("realtime", deploy=True)
def check_deployment(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Run the checks of what only matters in production, as part of ``check --deploy``."""
    try:
        _ = conf.raw
    except ImproperlyConfigured:
        return []  # E001
    return [
        message
        for check in (
            check_process_layer,
            check_proxies,
            check_key_provider,
            check_poolers,
            check_collected_script,
            check_health_urls,
        )
        for message in check()
    ]


@checks.register("realtime", checks.Tags.database)
def check_database(
    app_configs: Any = None, databases: Any = None, **kwargs: Any
) -> list[CheckMessage]:
    """Run the checks that query the database, as part of ``check --database default``."""
    if not databases or first_problem() is not None:
        return []
    messages = [*check_installed_triggers(databases), *check_announcements(databases)]
    if is_check_command():  # not before the migration that creates the function
        messages += check_numbering(databases)
    return messages

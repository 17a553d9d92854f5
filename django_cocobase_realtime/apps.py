"""The app's configuration: what happens when Django starts."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.signals import setting_changed
from django.utils.encoding import force_bytes
from django.utils.module_loading import autodiscover_modules


class RealtimeConfig(AppConfig):
    """Configuration of the app ``django_cocobase_realtime``."""

    name = "django_cocobase_realtime"
    label = "cocobase_realtime"
    verbose_name = "Realtime"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register checks, discover declared collections and rooms, connect signals."""
        from . import checks  # noqa: F401 - registers them
        from .auth import signals as revocation
        from .capture.triggers import migrations
        from .filters import KeySet, sql
        from .transport import missing_upgrade

        autodiscover_modules("realtime")
        _watch_collections()
        migrations.connect(self)
        revocation.connect()
        sql.connect()
        KeySet.use_secret(sha256(b"key sets" + force_bytes(settings.SECRET_KEY)).digest())
        missing_upgrade.connect()
        setting_changed.connect(_on_setting_changed, dispatch_uid="django_cocobase_realtime")


def _on_setting_changed(setting: str, **kwargs: Any) -> None:
    if setting == "COCOBASE_REALTIME":
        _watch_collections()


def _watch_collections() -> None:
    """Connect the signals of the models that the settings and the project's code declare."""
    from .capture import signals
    from .checks import first_problem
    from .declarations.registry import registry

    registry.clear_cache()
    # with a mistake in a declaration nothing is connected; the system checks will report it, and
    # the server does not start
    if first_problem() is None:
        signals.sync()

"""The names exported by the package, and the error if its app is not installed."""

import subprocess
import sys

import pytest

import django_cocobase_realtime
from django_cocobase_realtime.managers import RealtimeManager, RealtimeQuerySet
from tests.app.models import Item
from tests.support.servers import ROOT


def test_exported_names_can_be_imported():
    for name in django_cocobase_realtime.__all__:
        assert getattr(django_cocobase_realtime, name).__name__ == name
    with pytest.raises(AttributeError, match="nothing"):
        django_cocobase_realtime.nothing  # noqa: B018


def test_import_without_installed_app_names_the_setting():
    code = (
        "import django; from django.conf import settings\n"
        "apps = ['django.contrib.contenttypes', 'django.contrib.auth']\n"
        "settings.configure(INSTALLED_APPS=apps)\n"
        "django.setup()\n"
        "import django_cocobase_realtime.consumers.consumer"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr.endswith("Add 'django_cocobase_realtime' to INSTALLED_APPS.\n")


def test_realtime_manager_is_djangos_manager():
    assert type(Item.objects) is RealtimeManager
    assert type(Item.objects.all()) is RealtimeQuerySet
    assert type(RealtimeManager.from_queryset(RealtimeQuerySet)().get_queryset()) is (
        RealtimeQuerySet
    )
    assert issubclass(RealtimeManager[Item], RealtimeManager)
    own = set(vars(RealtimeManager)) | set(vars(RealtimeQuerySet))
    assert {name for name in own if not name.startswith("_")} == set()

"""The names exported by the package, and the error if its app is not installed."""

import subprocess
import sys

import pytest

import django_cocobase_realtime
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

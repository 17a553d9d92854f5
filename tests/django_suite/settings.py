"""Settings for Django's ``runtests.py``, which adds the rest.

It imports this module before the models of its tests, so what must be replaced before those are
defined is replaced here.
"""

import django

from tests.django_suite import managers, plain_postgres, queries
from tests.django_suite.options import from_environment
from tests.support import postgres

options = from_environment()

SECRET_KEY = "django_tests_secret_key"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
if django.VERSION < (6, 0):  # as in the settings of Django's tests
    DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
TEST_RUNNER = "tests.django_suite.runner.Runner"
CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
COCOBASE_REALTIME = {"COLLECTIONS": {}}

if options.database == "postgres":
    plain_postgres.adapt()
    DATABASES = {
        alias: {**postgres.database_settings(), "NAME": f"django_{alias}"}
        for alias in ("default", "other")
    }
else:
    DATABASES = {alias: {"ENGINE": "django.db.backends.sqlite3"} for alias in ("default", "other")}

if options.manager:
    managers.replace_default_manager()
if options.queries:
    queries.count_queries()

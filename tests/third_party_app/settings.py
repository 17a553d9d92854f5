"""The test project with packages whose fields, managers and models capture must handle.

    python -m pytest --ds=tests.third_party_app.settings tests/third_party_app

They are not in the settings of all tests, because some of them patch Django.
"""

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS as _APPS

INSTALLED_APPS = [
    "modeltranslation",
    *_APPS,
    "djmoney",
    "phonenumber_field",
    "taggit",
    "mptt",
    "polymorphic",
    "simple_history",
    "tests.third_party_app",
]
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
LANGUAGE_CODE = "en"
SALT_KEY = "only-for-tests"

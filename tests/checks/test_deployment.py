"""System checks of production settings, and of how Redis and proxies are described."""

import os
import re
import subprocess
import sys

import pytest
from django.core.checks import run_checks
from django.db import connections
from django.test import override_settings

from django_cocobase_realtime.checks import check_deployment, check_settings
from tests.support.blocks import ROOT, code_blocks

PAGES = [ROOT / "docs" / "how-to" / name for name in ("production.md", "deploy.md")]
MEMORY = "channels.layers.InMemoryChannelLayer"
PUBSUB = "channels_redis.pubsub.RedisPubSubChannelLayer"
SENTINEL = {"sentinels": [("10.0.0.1", 26379)], "master_name": "mymaster"}
POOLER = {"ENGINE": "django.db.backends.postgresql", "NAME": "x", "PORT": 6432}
KEYS = {"JWKS_URL": "https://id.example.com/keys", "ALGORITHMS": ["RS256"], "AUDIENCE": "shop"}


GOOD = {
    "DEBUG": False,
    "CHANNEL_LAYERS": {"default": {"BACKEND": PUBSUB, "CONFIG": {"hosts": ["redis://redis"]}}},
    "SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https"),
    "COCOBASE_REALTIME": {"TRUSTED_PROXIES": ["127.0.0.1", "10.0.0.0/8", "fc00::/7"], "JWT": KEYS},
}


def ids(messages):
    return [message.id.removeprefix("cocobase_realtime.") for message in messages]


def realtime(**changes):
    return {"COCOBASE_REALTIME": {**GOOD["COCOBASE_REALTIME"], **changes}}


@pytest.mark.parametrize(
    ("changes", "id"),
    [
        (
            {"CHANNEL_LAYERS": {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}},
            "W051",
        ),
        (realtime(TRUSTED_PROXIES=[]), "W072"),
        (realtime(TRUSTED_PROXIES=[]) | {"USE_X_FORWARDED_HOST": True}, "W072"),
        (realtime(TRUSTED_PROXIES=["0.0.0.0/0"]), "W073"),
        (realtime(TRUSTED_PROXIES=["::/0"]), "W073"),
        (realtime(JWT=KEYS | {"JWKS_URL": "http://id.example.com/keys"}), "W075"),
        (realtime(JWT=KEYS | {"AUDIENCE": None}), "W079"),
        ({"ROOT_URLCONF": "tests.checks.test_deployment"}, "I078"),
    ],
)
def test_setting_that_does_not_suit_production_is_reported(changes, id):
    with override_settings(**GOOD):
        assert check_deployment() == []
    with override_settings(**(GOOD | changes)):
        messages = check_deployment()
    assert ids(messages) == [id]
    assert all(message.hint for message in messages)


urlpatterns = []  # for I078
# what `startproject` writes and the settings of the tests leave out
START = """\
from tests.settings import *
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    *MIDDLEWARE,
]
"""


@pytest.mark.parametrize(
    ("database", "is_reported"),
    [
        (POOLER, True),
        (POOLER | {"PORT": "", "HOST": "db-pooler.example.com"}, True),
        (POOLER | {"DISABLE_SERVER_SIDE_CURSORS": True}, False),
        (POOLER | {"PORT": 5432}, False),
        (POOLER | {"ENGINE": "django.db.backends.sqlite3"}, False),
        (
            POOLER
            | {"DISABLE_SERVER_SIDE_CURSORS": True, "OPTIONS": {"options": "-c search_path=a"}},
            True,
        ),
    ],
)
def test_session_state_behind_a_pooler_is_reported(settings, monkeypatch, database, is_reported):
    for name, value in GOOD.items():
        setattr(settings, name, value)
    monkeypatch.setitem(connections.settings, "default", database)
    assert ids(check_deployment()) == ["W076"] * is_reported


def test_outdated_client_among_static_files_is_reported(settings, tmp_path):
    for name, value in GOOD.items():
        setattr(settings, name, value)
    script = tmp_path / "django_cocobase_realtime" / "realtime.js"
    settings.STATIC_ROOT = str(tmp_path)
    assert ids(check_deployment()) == ["W077"]
    script.parent.mkdir()
    script.write_text("outdated")
    assert ids(check_deployment()) == ["W077"]
    source = ROOT / "django_cocobase_realtime" / "static" / "django_cocobase_realtime"
    script.write_bytes((source / "realtime.js").read_bytes())
    assert check_deployment() == []
    settings.STATIC_ROOT = str(tmp_path / "not collected yet")
    assert check_deployment() == []


def test_checks_of_production_are_part_of_check_deploy_only(settings):
    settings.COCOBASE_REALTIME = {}
    settings.DEBUG = False
    assert "cocobase_realtime.W051" not in [m.id for m in run_checks(tags=["realtime"])]
    deployment = run_checks(tags=["realtime"], include_deployment_checks=True)
    assert "cocobase_realtime.W051" in [m.id for m in deployment]
    settings.COCOBASE_REALTIME = 5
    assert check_deployment() == []  # E001


@pytest.mark.parametrize(
    ("hosts", "reported", "presence"),
    [
        (None, [], []),
        (["redis://h"], [], []),
        ([("h", 6379)], [], []),
        (["unix:///run/redis.sock?db=1"], [], []),
        ([{"address": "rediss://h", "ssl_cert_reqs": "none", "socket_timeout": 15}], [], []),
        ([SENTINEL], [], []),
        (
            [{**SENTINEL, "ssl": True, "password": "p", "sentinel_kwargs": {"password": "q"}}],
            [],
            [],
        ),
        (["redis://one", "redis://two"], [], ["E096"]),
        ("redis://h", ["E071"], ["E096"]),
        (["h:6379"], ["E071"], ["E096"]),
        ([{"address": "redis://h", "nonsense": 1}], ["E071"], ["E096"]),
        ([{"host": "h", "ssl": True}], ["E071"], ["E096"]),
        ([{"sentinels": SENTINEL["sentinels"]}], ["E071"], ["E096"]),
        ([{**SENTINEL, "sentinels": ["10.0.0.1:26379"]}], ["E071"], ["E096"]),
    ],
)
def test_hosts_of_the_layer_are_checked_for_the_layer_and_for_presence(
    settings, hosts, reported, presence
):
    settings.DEBUG = True
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": PUBSUB, "CONFIG": {"hosts": hosts}}}
    settings.COCOBASE_REALTIME = {}
    assert ids(check_settings()) == reported
    settings.COCOBASE_REALTIME = {"PRESENCE": {"BACKEND": "redis"}}
    assert ids(check_settings()) == reported + presence
    settings.COCOBASE_REALTIME = {"PRESENCE": {"BACKEND": "redis", "URL": SENTINEL}}
    assert ids(check_settings()) == reported


@pytest.mark.parametrize("proxy", ["nginx", "10.0.0.1:80", "10.0.0.0/40", 5.5])
def test_proxy_that_is_no_address_is_reported(settings, proxy):
    settings.DEBUG = True
    settings.COCOBASE_REALTIME = {"TRUSTED_PROXIES": ["10.0.0.0/8", "::1", proxy]}
    assert ids(check_settings()) == ["E074"]


def test_documented_settings_pass_check_deploy(tmp_path):
    """The example of the guide has no warning at all, also none of Django's."""
    blocks = [b for page in PAGES for b in code_blocks(page, "python") if "\nSECURE_" in f"\n{b}"]
    assert len(blocks) == 2
    settings = "".join(blocks).replace("from .settings import *\n", START)
    (tmp_path / "production.py").write_text(settings)
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "production",
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
        "SECRET_KEY": "documented" * 8 + "0123456789",
    }
    for name in ("TEST_DATABASE", "REALTIME_TEST_DATABASES"):
        environment.pop(name, None)

    def check():
        command = [sys.executable, "-m", "django", "check", "--deploy", "--fail-level", "WARNING"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    result = check()
    assert result.returncode == 0, result.stderr
    assert set(re.findall(r"cocobase_realtime\.\w+", result.stderr)) <= {"cocobase_realtime.I082"}
    with (tmp_path / "production.py").open("a") as file:
        file.write("COCOBASE_REALTIME['TRUSTED_PROXIES'] = []\n")
    result = check()
    assert result.returncode == 1
    assert "cocobase_realtime.W072" in result.stderr

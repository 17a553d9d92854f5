"""The command ``realtime_key``."""

import io
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from django_cocobase_realtime.auth.backends import authenticate
from django_cocobase_realtime.models import ApiKey

pytestmark = pytest.mark.django_db


def run(*args):
    out, err = io.StringIO(), io.StringIO()
    call_command("realtime_key", *args, stdout=out, stderr=err)
    return out.getvalue()


def test_create_prints_key_on_last_line():
    key = run("create", "phone app", "--project", "p", "--publish").splitlines()[-1]
    identity = authenticate(key, {})
    assert (identity.project, identity.can_publish) == ("p", True)


def test_create_with_user_and_expiry(django_user_model):
    ada = django_user_model.objects.create_user("ada")
    key = run("create", "bot", "--user", "ada", "--expires-in", "1").strip()
    assert authenticate(key, {}).user == ada
    lifetime = ApiKey.objects.get().expires_at - timezone.now()
    assert timedelta(hours=23) < lifetime <= timedelta(days=1)
    run("create", "later", "--expires-at", "2100-01-01T00:00Z")


@pytest.mark.parametrize(
    "args",
    [
        ["create", "x", "--user", "nobody"],
        ["create", "x", "--expires-at", "tomorrow"],
        ["create", "x", "--expires-at", "2001-01-01T00:00Z"],
        ["create", "x", "--expires-at", "2001-99-99T00:00Z"],
        ["create", "x", "--expires-in", "-1"],
        ["create", "x", "--expires-in", "1", "--expires-at", "2100-01-01T00:00Z"],
        ["revoke", "nothing"],
        ["create"],
        [],
    ],
)
def test_invalid_arguments_are_rejected(args):
    with pytest.raises(CommandError):
        run(*args)
    assert not ApiKey.objects.exists()


def test_list_shows_state_and_revoke_ends_key():
    key = run("create", "app").strip()
    run("create", "other", "--project", "p")
    prefix = key.split("_")[1]
    listing = run("list")
    assert prefix in listing
    assert "live" in listing
    assert key.split("_")[2] not in listing
    assert prefix not in run("list", "--project", "p")
    assert "revoked" in run("revoke", prefix)
    assert authenticate(key, {}) is None
    assert "revoked" in run("list")
    with pytest.raises(CommandError, match="revoked before"):
        run("revoke", prefix)

"""The command ``realtime_key``."""

import io
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from django_cocobase_realtime.auth.backends import authenticate
from django_cocobase_realtime.declarations.scopes import unmatched_rooms
from django_cocobase_realtime.identity import AccessScope
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
        ["create", "x", "--publish", "--read-only"],
        ["create", "x", "--collections", "posts", "nothing"],
        ["create", "--collections", "posts", "x"],
        ["create", "x", "--rooms", ""],
        ["create", "x", "--rooms", "a", " "],
        ["create", "x", "--collections", ""],
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


def test_create_restricts_key_and_list_shows_scope(settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": {"model": "app.Post", "aliases": ["articles"]}},
        "ROOMS": {"lobby-*": {}},
    }
    names = ["--collections", "posts", "articles", "--rooms", "lobby-1", "--rooms", "[a-z]*"]
    key = run("create", "web", *names, "--read-only").splitlines()[-1]
    scope = authenticate(key, {}).scope
    assert scope == AccessScope(frozenset({"posts", "articles"}), ("lobby-1", "[a-z]*"), True)
    assert "collections: articles, posts; rooms: [a-z]*, lobby-1; read-only" in run("list")
    key = run("create", "none", "--collections", "--rooms").splitlines()[-1]
    assert authenticate(key, {}).scope == AccessScope(frozenset(), ())
    key = run("create", "all").splitlines()[-1]
    assert authenticate(key, {}).scope == AccessScope()
    err = io.StringIO()
    call_command("realtime_key", "create", "x", "--rooms", "hall", stdout=err, stderr=err)
    assert "no declared room" in err.getvalue()


def test_patterns_that_have_no_name_in_common_are_found(settings):
    settings.COCOBASE_REALTIME = {"ROOMS": {"a?[bc]*": {}, "exact": {}}}
    matched = ["*", "a*", "axb", "a[!x]?z", "?x*", "*t", "[e]xact", "e*t"]
    unmatched = ["", "a", "b*", "axd", "exact?", "[!ae]*", "ax[", "EXACT"]
    assert unmatched_rooms([*matched, *unmatched]) == unmatched
    settings.COCOBASE_REALTIME = {}
    assert unmatched_rooms(unmatched) == []


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

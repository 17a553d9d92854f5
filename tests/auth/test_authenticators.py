"""The authenticators: API keys, JSON Web Tokens and Django sessions, valid and invalid."""

import time
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.db import SessionStore
from django.db import OperationalError
from django.utils import timezone

from django_cocobase_realtime.auth import jwks
from django_cocobase_realtime.auth.backends import (
    AuthenticationPostponed,
    AuthenticationUnavailable,
    NotYetValid,
    authenticate,
    find_revoked,
)
from django_cocobase_realtime.conf import conf
from django_cocobase_realtime.identity import Identity
from django_cocobase_realtime.models import ApiKey
from django_cocobase_realtime.utils.project_code import ProjectCodeFailed
from tests.support.key_server import KeyServer, private_key

pytestmark = pytest.mark.django_db
KEY = "a-shared-secret-of-more-than-32-bytes!"
JWT = "django_cocobase_realtime.auth.jwt.JwtAuthenticator"


def all_revoked(identities):
    """Return the credentials that their authenticators no longer accept."""
    return set().union(*(find_revoked(path, identities) for path in conf.authenticators))


@pytest.fixture
def key_server(settings):
    with KeyServer() as server:
        settings.COCOBASE_REALTIME = {"JWT": {"JWKS_URL": server.url, "ALGORITHMS": ["RS256"]}}
        yield server


@pytest.fixture
def ada():
    return get_user_model().objects.create_user("ada", password="secret")


def claims(subject, **extra):
    return {"sub": str(subject), "exp": datetime.now(UTC) + timedelta(hours=1), **extra}


def configure_jwt(settings, **options):
    settings.COCOBASE_REALTIME = {"JWT": {"KEY": KEY, **options}}


# API keys


def test_api_key_is_stored_hashed():
    key, plain = ApiKey.objects.create_key("app", project="p", can_publish=True)
    assert plain.startswith(f"crk_{key.prefix}_")
    secret = plain.split("_")[2]
    assert len(secret) == 43
    assert secret not in str(list(ApiKey.objects.values()))
    assert secret not in repr(key) + str(key)
    identity = authenticate(plain, {})
    assert (identity.project, identity.user, identity.user_key) == ("p", None, None)
    assert identity.can_publish
    assert identity.credential == f"key:{key.prefix}"
    assert secret not in repr(identity)
    key.refresh_from_db()
    assert key.last_used_at is not None


@pytest.mark.parametrize("change", ["project", "user", "can_publish"])
def test_api_key_with_changed_project_or_user_revokes_identity(ada, change):
    key, plain = ApiKey.objects.create_key("bot")
    identity = authenticate(plain, {})
    assert all_revoked([identity]) == set()
    setattr(key, change, {"project": "elsewhere", "user": ada, "can_publish": True}[change])
    key.save()
    assert all_revoked([identity]) == (set() if change == "can_publish" else {identity.credential})
    assert all_revoked([authenticate(plain, {})]) == set()


def test_api_key_with_user_identifies_that_user(ada):
    _, plain = ApiKey.objects.create_key("bot", user=ada)
    identity = authenticate(plain, {})
    assert (identity.user, identity.user_id, identity.name) == (ada, ada.pk, "ada")
    ada.is_active = False
    ada.save()
    assert authenticate(plain, {}) is None


@pytest.mark.parametrize("defect", ["wrong", "revoked", "expired", "prefix", "truncated"])
def test_invalid_api_key_is_rejected(defect):
    key, plain = ApiKey.objects.create_key("app")
    other = ApiKey.objects.create_key("other")[1]
    match defect:
        case "wrong":
            plain = plain[:-1] + ("a" if plain[-1] != "a" else "b")
        case "revoked":
            key.revoke()
        case "expired":
            ApiKey.objects.filter(pk=key.pk).update(expires_at=timezone.now())
        case "prefix":
            plain = f"crk_{key.prefix}_{other.split('_')[2]}"
        case "truncated":
            plain = f"crk_{key.prefix}_"
    assert authenticate(plain, {}) is None


def test_revoked_and_deleted_api_keys_are_found():
    live, revoked, deleted = (ApiKey.objects.create_key(n) for n in "abc")
    identities = [authenticate(plain, {}) for _, plain in (live, revoked, deleted)]
    assert all_revoked(identities) == set()
    revoked[0].revoke()
    deleted[0].delete()
    assert all_revoked(identities) == {i.credential for i in identities[1:]}


# JSON Web Tokens


def test_token_identifies_an_active_user(ada):
    identity = authenticate(jwt.encode(claims(ada.pk, project="p", role="x"), KEY), {})
    assert (identity.user_id, identity.name, identity.project) == (ada.pk, "ada", "p")
    assert identity.claims["role"] == "x"
    assert identity.expires_at > datetime.now(UTC)
    with pytest.raises(TypeError):
        identity.claims["role"] = "admin"
    ada.is_active = False
    ada.save()
    assert all_revoked([identity]) == {identity.credential}
    assert authenticate(jwt.encode(claims(ada.pk), KEY), {}) is None


@pytest.mark.parametrize(
    "token",
    [
        lambda pk: jwt.encode({"sub": str(pk)}, KEY),  # no exp
        lambda pk: jwt.encode(claims(pk, exp=datetime.now(UTC) - timedelta(1)), KEY),
        lambda pk: jwt.encode(claims(pk, exp=10**18), KEY),
        lambda pk: jwt.encode(claims(pk), KEY + "!"),
        lambda pk: jwt.encode(claims(pk), None, "none"),
        lambda pk: jwt.encode(claims(pk), KEY * 2, "HS512"),
        lambda pk: jwt.encode(claims("nobody"), KEY),
        lambda pk: jwt.encode(claims(10**30), KEY),
        lambda pk: jwt.encode(claims(pk, sub=True), KEY),
        lambda pk: jwt.encode(claims(pk, sub={"a": 1}), KEY),
        lambda pk: jwt.encode(claims(pk, project=5), KEY),
        lambda pk: jwt.encode(claims(pk, aud="else"), KEY)[:-3],
        lambda pk: "a.b.c",
        lambda pk: "..",
    ],
)
def test_invalid_token_is_rejected(ada, token):
    assert authenticate(token(ada.pk), {}) is None


@pytest.mark.parametrize("claim", ["nbf", "iat"])
def test_token_that_is_not_valid_yet_is_rejected(ada, claim):
    with pytest.raises(NotYetValid):
        authenticate(jwt.encode(claims(ada.pk, **{claim: time.time() + 60}), KEY), {})


def test_token_with_wrong_audience_or_issuer_is_rejected(ada, settings):
    configure_jwt(settings, AUDIENCE="us", ISSUER="them")
    assert authenticate(jwt.encode(claims(ada.pk, aud="us", iss="them"), KEY), {}) is not None
    for wrong in ({"aud": "us"}, {"iss": "them"}, {"aud": "x", "iss": "them"}, {}):
        assert authenticate(jwt.encode(claims(ada.pk, **wrong), KEY), {}) is None


def test_token_with_other_claims_or_without_user_lookup(ada, settings):
    configure_jwt(settings, USER_LOOKUP="username", USER_CLAIM="login", PROJECT_CLAIM="tenant")
    token = jwt.encode(claims("x", login="ada", tenant="t"), KEY)
    assert authenticate(token, {}).user == ada
    assert authenticate(token, {}).project == "t"
    configure_jwt(settings, USER_LOOKUP=None)
    identity = authenticate(jwt.encode(claims("external-7", name="Bob"), KEY), {})
    assert (identity.user, identity.user_id, identity.name) == (None, None, "Bob")
    assert (identity.subject, identity.user_key) == ("external-7", "jwt:external-7")


def test_token_is_rejected_without_jwt_setting(ada, settings):
    settings.COCOBASE_REALTIME = {}
    assert authenticate(jwt.encode(claims(ada.pk), KEY), {}) is None


def test_keys_from_url_are_cached_and_refetched_when_rotated(ada, settings, key_server):
    def sign(kid, key=None):
        return key_server.sign(ada.pk, kid, key)

    assert authenticate(sign("one"), {}).user == ada
    assert authenticate(sign("one"), {}).user == ada
    assert key_server.requests == 1  # cached
    key_server.keys["two"] = private_key()
    assert authenticate(sign("two"), {}).user == ada  # rotated: fetched again
    assert key_server.requests == 2
    for n in range(20):  # tokens with unknown key ids do not cause a request each
        with pytest.raises(AuthenticationPostponed):
            authenticate(sign(f"made-up-{n}", key_server.keys["one"]), {})
    assert key_server.requests == 2
    assert authenticate(sign("one", key_server.keys["two"]), {}) is None
    # a public key must not be accepted as a shared secret
    forged = jwt.encode(claims(ada.pk), "x" * 40, "HS256", {"kid": "one"})
    assert authenticate(forged, {}) is None


def test_unavailable_key_server_is_a_temporary_failure(ada, key_server, monkeypatch):
    monkeypatch.setattr(jwks, "RETRY_INTERVAL", 2)
    token = key_server.sign(ada.pk)
    key_server.status = 503
    for _ in range(3):  # also until the next request is allowed
        with pytest.raises(AuthenticationUnavailable):
            authenticate(token, {})
    assert key_server.requests == 1
    key_server.status = 200
    time.sleep(2.1)
    assert authenticate(token, {}).user == ada
    key_server.status = 503
    rotated = key_server.sign(ada.pk, "two", key_server.keys["one"])
    with pytest.raises(AuthenticationUnavailable):
        authenticate(rotated, {})
    assert authenticate(token, {}).user == ada  # known keys stay valid


# the Django session


def scope(session=None, *, checked=True, **extra):
    cookie = f"theme=dark; sessionid={session.session_key}" if session else "a=b"
    headers = [(b"cookie", cookie.encode())]
    return {"headers": headers, "realtime_origin_checked": checked, **extra}


@pytest.fixture
def session(ada, client):
    client.force_login(ada)
    return SessionStore(client.cookies["sessionid"].value)


def test_session_is_accepted_only_with_checked_origin(ada, session):
    identity = authenticate(None, scope(session))
    assert (identity.user, identity.name) == (ada, "ada")
    assert session.session_key not in identity.credential + repr(identity)
    assert identity.expires_at > datetime.now(UTC)
    assert authenticate(None, scope(session, checked=False)) is None
    assert authenticate("token", scope(session)) is None
    assert authenticate(None, scope()) is None
    assert authenticate(None, {"headers": [], "realtime_origin_checked": True}) is None


@pytest.mark.parametrize("reason", ["logout", "password", "inactive", "deleted"])
def test_ended_session_is_revoked(ada, session, client, reason):
    identity = authenticate(None, scope(session))
    assert all_revoked([identity]) == set()
    match reason:
        case "logout":
            client.logout()
        case "password":
            ada.set_password("other")
            ada.save()
        case "inactive":
            ada.is_active = False
            ada.save()
        case "deleted":
            ada.delete()
    assert all_revoked([identity]) == {identity.credential}
    assert authenticate(None, scope(session)) is None


def test_user_in_scope_is_accepted_only_with_checked_origin(ada):
    assert authenticate(None, scope(user=ada)).user == ada
    assert authenticate(None, scope(user=ada, checked=False)) is None


# the chain of authenticators


class CustomAuthenticator:
    kind = "custom"

    def authenticate(self, token, scope):  # noqa: RET503
        if token == "down":
            raise OperationalError("gone")
        if token == "expired":
            return Identity("custom:1", expires_at=datetime.now(UTC) - timedelta(seconds=1))
        if token == "bug":
            raise RuntimeError(f"secret {token}")

    def revoked(self, identities):
        return set()


def test_authenticators_are_tried_in_order(settings, caplog, ada):
    settings.COCOBASE_REALTIME = {
        "AUTHENTICATORS": [f"{__name__}.CustomAuthenticator", JWT],
        "JWT": {"KEY": KEY},
    }
    assert authenticate(jwt.encode(claims(ada.pk), KEY), {}).user == ada
    assert authenticate("expired", {}) is None
    with pytest.raises(ProjectCodeFailed) as failed:
        authenticate("bug", {})  # the JWT authenticator does not accept it either
    failed.value.log()
    assert "bug" not in caplog.text
    assert "Custom" in caplog.text
    with pytest.raises(AuthenticationUnavailable):
        authenticate("down", {})
    for token in ("", "x" * 5000, "a\nb", "a\x00"):
        assert authenticate(token, {}) is None


@pytest.mark.parametrize(
    ("claim", "value"),
    [(c, v) for c in ("sub", "project") for v in ("a\0b", "a\ud800b", "x" * 256)]
    + [("project", "x" * 129)],
)
def test_token_with_claim_too_long_or_unstorable_is_rejected(settings, claim, value):
    configure_jwt(settings, USER_LOOKUP=None)
    text = jwt.encode(claims("s") | {claim: value}, KEY, "HS256")
    assert authenticate(text, {}) is None


def test_name_claim_is_cleaned_and_shortened(settings):
    """Users may be able to choose their names freely, so a bad name is not rejected."""
    configure_jwt(settings, USER_LOOKUP=None)
    for name, shown in (("A\0da\ud800", "Ada?"), ("\0", "s"), ("n" * 1000, "n" * 255)):
        identity = authenticate(jwt.encode(claims("s", name=name), KEY, "HS256"), {})
        assert identity.name == shown

"""Each credential: what holds, what does not, and that nobody learns why."""

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.db import SessionStore
from django.db import OperationalError
from django.utils import timezone
from jwt.algorithms import RSAAlgorithm

from django_cocobase_realtime.auth import jwt as jwt_module
from django_cocobase_realtime.auth.backends import (
    AuthenticationUnavailable,
    authenticate,
    find_revoked,
)
from django_cocobase_realtime.models import ApiKey

pytestmark = pytest.mark.django_db
KEY = "a-shared-secret-of-more-than-32-bytes!"
JWT = "django_cocobase_realtime.auth.jwt.JwtAuthenticator"


@pytest.fixture
def ada():
    return get_user_model().objects.create_user("ada", password="secret")


def claims(subject, **more):
    return {"sub": str(subject), "exp": datetime.now(UTC) + timedelta(hours=1), **more}


def use(settings, **options):
    settings.COCOBASE_REALTIME = {"JWT": {"KEY": KEY, **options}}


# API keys


def test_a_key_is_shown_once_and_stored_hashed():
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
def test_a_key_that_speaks_for_somebody_else_now_is_no_longer_what_a_connection_has(ada, change):
    key, plain = ApiKey.objects.create_key("bot")
    identity = authenticate(plain, {})
    assert find_revoked([identity]) == set()
    setattr(key, change, {"project": "elsewhere", "user": ada, "can_publish": True}[change])
    key.save()
    assert find_revoked([identity]) == (set() if change == "can_publish" else {identity.credential})
    assert find_revoked([authenticate(plain, {})]) == set()


def test_a_key_may_act_for_a_user(ada):
    _, plain = ApiKey.objects.create_key("bot", user=ada)
    identity = authenticate(plain, {})
    assert (identity.user, identity.user_id, identity.name) == (ada, ada.pk, "ada")
    ada.is_active = False
    ada.save()
    assert authenticate(plain, {}) is None


@pytest.mark.parametrize("what", ["wrong", "revoked", "expired", "prefix", "cut"])
def test_keys_that_do_not_hold(what):
    key, plain = ApiKey.objects.create_key("app")
    other = ApiKey.objects.create_key("other")[1]
    match what:
        case "wrong":
            plain = plain[:-1] + ("a" if plain[-1] != "a" else "b")
        case "revoked":
            key.revoke()
        case "expired":
            ApiKey.objects.filter(pk=key.pk).update(expires_at=timezone.now())
        case "prefix":
            plain = f"crk_{key.prefix}_{other.split('_')[2]}"
        case "cut":
            plain = f"crk_{key.prefix}_"
    assert authenticate(plain, {}) is None


def test_dead_keys():
    live, revoked, deleted = (ApiKey.objects.create_key(n) for n in "abc")
    identities = [authenticate(plain, {}) for _, plain in (live, revoked, deleted)]
    assert find_revoked(identities) == set()
    revoked[0].revoke()
    deleted[0].delete()
    assert find_revoked(identities) == {i.credential for i in identities[1:]}


# JSON Web Tokens


def test_a_token_names_an_active_user(ada):
    identity = authenticate(jwt.encode(claims(ada.pk, project="p", role="x"), KEY), {})
    assert (identity.user_id, identity.name, identity.project) == (ada.pk, "ada", "p")
    assert identity.claims["role"] == "x"
    assert identity.expires_at > datetime.now(UTC)
    with pytest.raises(TypeError):
        identity.claims["role"] = "admin"
    ada.is_active = False
    ada.save()
    assert find_revoked([identity]) == {identity.credential}
    assert authenticate(jwt.encode(claims(ada.pk), KEY), {}) is None


@pytest.mark.parametrize(
    "token",
    [
        lambda pk: jwt.encode({"sub": str(pk)}, KEY),  # no exp
        lambda pk: jwt.encode(claims(pk, exp=datetime.now(UTC) - timedelta(1)), KEY),
        lambda pk: jwt.encode(claims(pk, exp=10**18), KEY),
        lambda pk: jwt.encode(claims(pk, nbf=datetime.now(UTC) + timedelta(1)), KEY),
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
def test_tokens_that_do_not_hold(ada, token):
    assert authenticate(token(ada.pk), {}) is None


def test_audience_and_issuer(ada, settings):
    use(settings, AUDIENCE="us", ISSUER="them")
    assert authenticate(jwt.encode(claims(ada.pk, aud="us", iss="them"), KEY), {}) is not None
    for wrong in ({"aud": "us"}, {"iss": "them"}, {"aud": "x", "iss": "them"}, {}):
        assert authenticate(jwt.encode(claims(ada.pk, **wrong), KEY), {}) is None


def test_other_lookups_and_subjects_without_a_user(ada, settings):
    use(settings, USER_LOOKUP="username", USER_CLAIM="login", PROJECT_CLAIM="tenant")
    token = jwt.encode(claims("x", login="ada", tenant="t"), KEY)
    assert authenticate(token, {}).user == ada
    assert authenticate(token, {}).project == "t"
    use(settings, USER_LOOKUP=None)
    identity = authenticate(jwt.encode(claims("external-7", name="Bob"), KEY), {})
    assert (identity.user, identity.user_id, identity.name) == (None, "external-7", "Bob")


def test_without_the_setting_no_token_holds(ada, settings):
    settings.COCOBASE_REALTIME = {}
    assert authenticate(jwt.encode(claims(ada.pk), KEY), {}) is None


@pytest.fixture
def jwks():
    """A real server of public keys, and how often it was asked."""
    keys = {"one": rsa.generate_private_key(public_exponent=65537, key_size=2048)}

    class Handler(BaseHTTPRequestHandler):
        asked = 0
        away = False

        def do_GET(self):
            Handler.asked += 1
            if Handler.away:
                self.send_error(503)
                return
            public = [
                {**RSAAlgorithm.to_jwk(k.public_key(), as_dict=True), "kid": kid, "use": "sig"}
                for kid, k in keys.items()
            ]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"keys": public}).encode())

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield keys, Handler, f"http://127.0.0.1:{server.server_port}/keys"
    server.shutdown()
    thread.join()
    server.server_close()


def test_keys_behind_a_url(ada, settings, jwks):
    keys, handler, url = jwks
    settings.COCOBASE_REALTIME = {"JWT": {"JWKS_URL": url, "ALGORITHMS": ["RS256"]}}

    def sign(kid, key=None):
        return jwt.encode(claims(ada.pk), key or keys[kid], "RS256", {"kid": kid})

    assert authenticate(sign("one"), {}).user == ada
    assert authenticate(sign("one"), {}).user == ada
    assert handler.asked == 1  # cached
    keys["two"] = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert authenticate(sign("two"), {}).user == ada  # rotated: asked again
    assert handler.asked == 2
    for n in range(20):  # strangers with made-up ids cannot make it ask at will
        assert authenticate(sign(f"made-up-{n}", keys["one"]), {}) is None
    assert handler.asked == 3
    assert authenticate(sign("one", keys["two"]), {}) is None
    # the public key taken for a shared secret
    forged = jwt.encode(claims(ada.pk), "x" * 40, "HS256", {"kid": "one"})
    assert authenticate(forged, {}) is None


def test_a_server_of_keys_that_is_away_turns_nobody_away_for_good(ada, settings, jwks, monkeypatch):
    keys, handler, url = jwks
    settings.COCOBASE_REALTIME = {"JWT": {"JWKS_URL": url, "ALGORITHMS": ["RS256"]}}
    monkeypatch.setattr(jwt_module, "JWKS_MIN_FETCH_INTERVAL", 2)
    token = jwt.encode(claims(ada.pk), keys["one"], "RS256", {"kid": "one"})
    handler.away = True
    for _ in range(3):  # at the first try, and as long as it is not asked again
        with pytest.raises(AuthenticationUnavailable):
            authenticate(token, {})
    assert handler.asked == 1
    handler.away = False
    time.sleep(2.1)
    assert authenticate(token, {}).user == ada
    handler.away = True
    rotated = jwt.encode(claims(ada.pk), keys["one"], "RS256", {"kid": "two"})
    with pytest.raises(AuthenticationUnavailable):
        authenticate(rotated, {})
    assert authenticate(token, {}).user == ada  # known keys hold


# the Django session


def scope(session=None, *, checked=True, **more):
    cookie = f"theme=dark; sessionid={session.session_key}" if session else "a=b"
    headers = [(b"cookie", cookie.encode())]
    return {"headers": headers, "realtime_origin_checked": checked, **more}


@pytest.fixture
def session(ada, client):
    client.force_login(ada)
    return SessionStore(client.cookies["sessionid"].value)


def test_a_session_counts_where_the_origin_was_checked(ada, session):
    identity = authenticate(None, scope(session))
    assert (identity.user, identity.name) == (ada, "ada")
    assert session.session_key not in identity.credential + repr(identity)
    assert identity.expires_at > datetime.now(UTC)
    assert authenticate(None, scope(session, checked=False)) is None
    assert authenticate("token", scope(session)) is None
    assert authenticate(None, scope()) is None
    assert authenticate(None, {"headers": [], "realtime_origin_checked": True}) is None


@pytest.mark.parametrize("how", ["logout", "password", "inactive", "deleted"])
def test_sessions_that_end(ada, session, client, how):
    identity = authenticate(None, scope(session))
    assert find_revoked([identity]) == set()
    match how:
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
    assert find_revoked([identity]) == {identity.credential}
    assert authenticate(None, scope(session)) is None


def test_a_user_whom_a_middleware_found(ada):
    assert authenticate(None, scope(user=ada)).user == ada
    assert authenticate(None, scope(user=ada, checked=False)) is None


# the chain


class Custom:
    kind = "custom"

    def authenticate(self, token, scope):
        if token == "down":
            raise OperationalError("gone")
        if token == "bug":
            raise RuntimeError(f"secret {token}")

    def dead(self, identities):
        return set()


def test_the_chain(settings, caplog, ada):
    settings.COCOBASE_REALTIME = {
        "AUTHENTICATORS": [f"{__name__}.Custom", JWT],
        "JWT": {"KEY": KEY},
    }
    assert authenticate(jwt.encode(claims(ada.pk), KEY), {}).user == ada
    assert authenticate("bug", {}) is None
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
def test_claims_that_no_database_could_hold_are_refused(settings, claim, value):
    use(settings, USER_LOOKUP=None)
    text = jwt.encode(claims("s") | {claim: value}, KEY, "HS256")
    assert authenticate(text, {}) is None


def test_a_name_is_made_fit_to_be_shown(settings):
    """Where people may call themselves as they like, it is theirs to choose."""
    use(settings, USER_LOOKUP=None)
    for name, shown in (("A\0da\ud800", "Ada?"), ("\0", "s"), ("n" * 1000, "n" * 255)):
        identity = authenticate(jwt.encode(claims("s", name=name), KEY, "HS256"), {})
        assert identity.name == shown

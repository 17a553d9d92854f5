"""The demo's users: guests identified by their session, and named users whose tokens are public."""

import secrets
from datetime import UTC, datetime, timedelta

import jwt
from django.conf import settings
from django.contrib.auth import get_user_model, login

ANIMALS = ("Otter", "Heron", "Lynx", "Wren", "Badger", "Hare", "Newt", "Stork", "Mole", "Finch")
COURIERS = ("ada", "ben")
DISPATCHER = "dora"
# users by whose names cards show that the server, or an SQL command, has moved them
SERVER, SQL = "Server", "SQL"
# the names that a button on the board gives one user in turn
NAMES = ("Heron", "Grey heron")
TOKEN_LIFETIME = timedelta(minutes=10)


def create_guest():
    """Create a user with a random name and no password."""
    users = get_user_model().objects
    names = (f"{secrets.choice(ANIMALS)} {secrets.randbelow(900) + 100}" for _ in range(20))
    name = next((each for each in names if not users.filter(username=each).exists()), None)
    return users.create_user(username=name or f"Guest {secrets.token_hex(8)}")


def get_named(username):
    """Return the user with this name, who is created without a password if there is none."""
    users = get_user_model().objects
    return users.filter(username=username).first() or users.create_user(username)


def rename():
    """Give the user who has one of `NAMES` the other one. Return the new name."""
    user = get_user_model().objects.filter(username__in=NAMES).first() or get_named(NAMES[0])
    user.username = NAMES[user.username == NAMES[0]]
    user.save(update_fields=["username"])
    return user.username


def ensure_logged_in(request):
    """Log a visitor without a session in as a new guest."""
    if not request.user.is_authenticated:
        login(request, create_guest(), "django.contrib.auth.backends.ModelBackend")


def get_second_guest(request):
    """Return the second visitor of the same browser.

    A session identifies one user, so this one is identified by a token.
    """
    users = get_user_model().objects
    guest = users.filter(pk=request.session.get("second_guest")).first()
    if guest is None:
        guest = create_guest()
        request.session["second_guest"] = guest.pk
    return guest


def member(identity):
    """Return the name that other visitors see, by which the pages recognize their own user."""
    return {"name": identity.user.get_username()} if identity.user else None


def create_token(user):
    """Create a JSON Web Token that identifies the user for ten minutes."""
    claims = {"sub": str(user.pk), "exp": datetime.now(UTC) + TOKEN_LIFETIME}
    return jwt.encode(claims, settings.SECRET_KEY, "HS256")

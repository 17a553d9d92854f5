"""The demo's users: guests known by their session, and named users whose tokens are public."""

import secrets
from datetime import UTC, datetime, timedelta

import jwt
from django.conf import settings
from django.contrib.auth import get_user_model, login

ANIMALS = ("Otter", "Heron", "Lynx", "Wren", "Badger", "Hare", "Newt", "Stork", "Mole", "Finch")
COURIERS = ("ada", "ben")
DISPATCHER = "dora"
DISPATCHERS = "dispatchers"
TOKEN_LIFETIME = timedelta(minutes=10)


def create_guest():
    """Create a user with a random name and no password."""
    name = f"{secrets.choice(ANIMALS)} {secrets.randbelow(9000) + 1000}"
    return get_user_model().objects.create_user(username=name)


def ensure_logged_in(request):
    """Log a visitor without a session in as a new guest."""
    if not request.user.is_authenticated:
        login(request, create_guest(), "django.contrib.auth.backends.ModelBackend")


def get_second_guest(request):
    """Return another guest for the same browser, who needs a token: a session has one user."""
    users = get_user_model().objects
    guest = users.filter(pk=request.session.get("second_guest")).first()
    if guest is None:
        guest = create_guest()
        request.session["second_guest"] = guest.pk
    return guest


def create_token(user):
    """Create a JSON Web Token that identifies the user for ten minutes."""
    claims = {"sub": str(user.pk), "exp": datetime.now(UTC) + TOKEN_LIFETIME}
    return jwt.encode(claims, settings.SECRET_KEY, "HS256")

"""Who visits: guests by their session, and a few whose tokens the demo gives to everybody."""

import secrets
from datetime import UTC, datetime, timedelta

import jwt
from django.conf import settings
from django.contrib.auth import get_user_model, login

ANIMALS = ("Otter", "Heron", "Lynx", "Wren", "Badger", "Hare", "Newt", "Stork", "Mole", "Finch")
COURIERS = ("ada", "ben")
DISPATCHER = "dora"
DISPATCHERS = "dispatchers"
TOKEN_LIFE = timedelta(minutes=10)


def new_guest():
    """A user nobody can log in as."""
    name = f"{secrets.choice(ANIMALS)} {secrets.randbelow(9000) + 1000}"
    return get_user_model().objects.create_user(username=name)


def welcome(request):
    """A newcomer becomes a guest with a name, logged in by a Django session."""
    if not request.user.is_authenticated:
        login(request, new_guest(), "django.contrib.auth.backends.ModelBackend")


def second_guest(request):
    """Somebody else in the same browser: known by a token, since a session has one user."""
    users = get_user_model().objects
    guest = users.filter(pk=request.session.get("second_guest")).first()
    if guest is None:
        guest = new_guest()
        request.session["second_guest"] = guest.pk
    return guest


def token_for(user):
    """A JSON Web Token that the engine takes for this user for ten minutes."""
    claims = {"sub": str(user.pk), "exp": datetime.now(UTC) + TOKEN_LIFE}
    return jwt.encode(claims, settings.SECRET_KEY, "HS256")

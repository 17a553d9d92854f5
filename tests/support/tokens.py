"""Create JSON Web Tokens that the test project accepts."""

from datetime import UTC, datetime, timedelta

import jwt

KEY = "a-shared-secret-of-more-than-32-bytes!"


def create_token(user, seconds=3600, **claims):
    """Return a token for a user, or for the value of a ``sub`` claim."""
    expires = datetime.now(UTC) + timedelta(seconds=seconds)
    subject = str(getattr(user, "pk", user))
    return jwt.encode({"sub": subject, "exp": expires, **claims}, KEY, "HS256")

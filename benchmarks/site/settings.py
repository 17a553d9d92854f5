"""Settings of the measured servers: those of the test project, with the peers' apps."""

import json
import os

from tests.settings import *  # noqa: F403
from tests.settings import COCOBASE_REALTIME, INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, *json.loads(os.environ.get("BENCH_APPS") or "[]")]
_plenty = 1_000_000
COCOBASE_REALTIME = {
    "JWT": {
        "KEY": COCOBASE_REALTIME["JWT"]["KEY"],
        "USER_LOOKUP": None,  # the users are not in the database
    },
    "COLLECTIONS": {
        "posts": {
            "model": "app.Post",
            "fields": ["title", "body", "status", "views", "owner", "project", "created_at"],
            "permission": "benchmarks.site.permissions.OfProject",
            # the images that a trigger makes have no other fields
            "permission_fields": ["project"],
        },
    },
    "LIMITS": {
        "connections_per_process": _plenty,
        "connections_per_address": _plenty,
        "connections_per_user": _plenty,
        "unauthenticated_per_address": _plenty,
        "auth_timeout": 120,
    },
    **json.loads(os.environ.get("REALTIME_TEST_SETTINGS") or "{}"),
}

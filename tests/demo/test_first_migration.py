"""The first `migrate` of a project."""

import os
import subprocess
import sys

from tests.support.servers import ROOT


def test_first_migration_prints_no_warning(tmp_path):
    """Its checks run before the log and the triggers of the collections are created."""
    env = {**os.environ, "DATABASE_URL": f"sqlite:///{tmp_path / 'first.sqlite3'}"}
    env.pop("DJANGO_SETTINGS_MODULE", None)
    for _ in range(2):
        migrated = subprocess.run(
            [sys.executable, "manage.py", "migrate", "--verbosity", "0"],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
        assert (migrated.stdout, migrated.stderr) == ("", "")

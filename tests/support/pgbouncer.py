"""PgBouncer in transaction mode, in front of the PostgreSQL of the tests."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from .programs import require_program
from .servers import Server

# connections to PostgreSQL for each database: fewer than the threads that use them, so that
# consecutive transactions of one client use different connections
POOL_SIZE = 6
CONFIGURATION = """\
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 500
# use the connection that has been idle for the longest time
server_round_robin = 1
"""


class PgBouncer(Server):
    """PgBouncer, which runs as an unprivileged user, since it refuses to run as root."""

    def __init__(self, folder: Path, database: dict[str, object]) -> None:
        self.folder = folder
        configuration = folder / "pgbouncer.ini"
        command = [require_pgbouncer(), str(configuration)]
        if os.geteuid() == 0:
            owner = Path(str(database["HOST"])).stat().st_uid  # may use the socket in this folder
            command[1:1] = ["-u", pwd.getpwuid(owner).pw_name]
        super().__init__(command)
        configuration.write_text(
            CONFIGURATION.format(
                host=database["HOST"] or "127.0.0.1",
                port=database["PORT"] or 5432,
                user=database["USER"],
                listen_port=self.port,
                pool_size=POOL_SIZE,
            )
        )
        configuration.chmod(0o644)

    @property
    def address(self) -> dict[str, str]:
        """The settings of a database with which Django connects to PgBouncer."""
        return {"HOST": "127.0.0.1", "PORT": str(self.port)}


def require_pgbouncer() -> str:
    """Return the path of PgBouncer. Without it, skip the test; in CI, fail it."""
    return require_program("pgbouncer", "PgBouncer")

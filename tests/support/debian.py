"""A folder that stands for a Debian server, on which the commands of a guide are executed.

The commands that need root or a package are replaced: ``runuser`` changes no user, ``systemctl``
starts and stops the processes that its units describe, ``journalctl`` prints all their output, and
``apt``, ``adduser`` and ``certbot`` do nothing. All other commands are the machine's.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from .servers import ROOT

COMMAND_TIMEOUT = 60.0
NOTHING = "#!/bin/sh\n"
RUNUSER = """\
#!/bin/sh
user=$2; shift 3
[ "$user" != postgres ] || export PGUSER=postgres
exec "$@"
"""
JOURNALCTL = "#!/bin/sh\ncat {folder}/log/*\n"
SYSTEMCTL = """\
#!{python}
import json, socket, sys
with socket.create_connection(("127.0.0.1", {port})) as connection:
    connection.sendall(json.dumps(sys.argv[1:]).encode() + b"\\n")
    text, status = json.loads(connection.makefile().read())
print(text, end="")
sys.exit(status)
"""


class Systemd:
    """Runs the processes of template units, as the command ``systemctl`` asks for."""

    def __init__(self, units: Path, logs: Path, env: dict[str, str]) -> None:
        self.units, self.logs, self.env = units, logs, env
        # the running processes by the names of their units
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        # by the name of a service that others have started: what `reload` does
        self.services: dict[str, Callable[[], None]] = {}
        # how long each stop took, in seconds
        self.stops: list[float] = []
        systemd = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                answer = systemd.execute(*json.loads(self.rfile.readline()))
                self.wfile.write(json.dumps(answer).encode())

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def execute(self, action: str, *names: str) -> tuple[str, int]:
        """Return the output and the status of ``systemctl``."""
        names = tuple(name for name in names if not name.startswith("--"))
        if action == "is-active":
            active = [name in self.services or self._is_running(name) for name in names]
            text = "".join("active\n" if is_active else "failed\n" for is_active in active)
            return text, 0 if all(active) else 3
        for name in names:
            if action == "reload":
                self.services[name]()
            elif action == "restart":
                self.stop(name)
                self.start(name)
            else:
                assert action == "enable", action
                self.start(name)
        return "", 0

    def start(self, name: str) -> None:
        template, instance = name.split("@")
        unit = self._read(template, instance)
        with (self.logs / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                shlex.split(unit["ExecStart"]),
                cwd=unit["WorkingDirectory"],
                # nothing of the environment of the test but the paths
                env=self.env | _read_environment(Path(unit["EnvironmentFile"])),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self, name: str) -> None:
        """Send SIGTERM, and fail if that does not end the process in time."""
        process = self.processes[name]
        assert process.poll() is None, f"{name} has exited."
        timeout = float(self._read(*name.split("@"))["TimeoutStopSec"])
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        self.stops.append(time.monotonic() - began)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        for process in self.processes.values():
            process.kill()
            process.wait(10)

    def _is_running(self, name: str) -> bool:
        return name in self.processes and self.processes[name].poll() is None

    def _read(self, template: str, instance: str) -> dict[str, str]:
        text = (self.units / f"{template}@.service").read_text().replace("\\\n", " ")
        return dict(re.findall(r"^(\w+)=(.*)$", text.replace("%i", instance), re.M))


class Debian:
    """Executes the console blocks of a page, and writes its files, below one folder."""

    def __init__(
        self, folder: Path, substitutions: dict[str, str], env: dict[str, str], binaries: Path
    ) -> None:
        """Take what to substitute, the environment, and a folder with commands of PostgreSQL."""
        self.folder = folder
        self.substitutions = {
            "/etc/": f"{folder}/etc/",
            "/srv/": f"{folder}/srv/",
            "/usr/local/bin/": f"{folder}/bin/",
            "/var/www/": f"{folder}/var/www/",
            **substitutions,
        }
        # the commands that were started and not awaited
        self.commands: list[subprocess.Popen[str]] = []
        for path in ("bin", "srv", "var/www", "etc/systemd/system", "log"):
            (folder / path).mkdir(parents=True)
        # that of a login: no proxies, and no settings of the test project
        self.env = {
            "PATH": f"{folder}/bin:{binaries}:{os.environ['PATH']}:/usr/sbin",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(ROOT),
            **env,
        }
        self.systemd = Systemd(folder / "etc/systemd/system", folder / "log", self.env)
        self.write_command("systemctl", SYSTEMCTL, python=sys.executable, port=self.systemd.port)
        self.write_command("runuser", RUNUSER)
        self.write_command("journalctl", JOURNALCTL, folder=folder)
        for name in ("apt", "adduser", "certbot"):
            self.write_command(name, NOTHING)

    def write_command(self, name: str, text: str, **values: object) -> None:
        path = self.folder / "bin" / name
        path.write_text(text.format(**values) if values else text)
        path.chmod(0o755)

    def substitute(self, text: str) -> str:
        """Replace the paths, ports and names of the page by those of the test."""
        keys = sorted(self.substitutions, key=len, reverse=True)
        pattern = "|".join(map(re.escape, keys))
        return re.sub(pattern, lambda match: self.substitutions[match[0]], text)

    def write(self, path: str, text: str) -> None:
        """Write a file of the page."""
        file = Path(self.substitute(path))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self.substitute(text))

    def run(self, block: str) -> str:
        """Execute the commands of a console block, which must print what the block contains.

        In the expected output, ``…`` stands for any text, and on a line of its own for any lines.
        If nothing is expected, the output is not compared.
        """
        script, expected = "set -e\n", ""
        continues = False
        for line in block.splitlines():
            if line.startswith("$ ") or continues:
                script += line.removeprefix("$ ") + "\n"
                continues = line.endswith("\\")
            else:
                expected += line + "\n"
        completed = subprocess.run(
            ["bash", "-c", self.substitute(script)],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_TIMEOUT,
            check=False,
        )
        output = completed.stdout
        assert completed.returncode == 0, f"{block}\n{output}"
        if not expected:
            return output
        pattern = re.escape(self.substitute(expected))
        pattern = re.sub(r"^…\\\n", r"(?:.*\\n)*?", pattern, flags=re.M).replace("…", ".*")
        assert re.fullmatch(pattern, output.rstrip("\n") + "\n"), f"{block}\n{output}"
        return output

    def popen(self, *command: str, output: Path, **env: str) -> subprocess.Popen[str]:
        """Start a command in the environment of a login; write its output to a file."""
        with output.open("w") as file:
            process = subprocess.Popen(
                [shutil.which(command[0], path=self.env["PATH"]) or command[0], *command[1:]],
                cwd=self.folder,
                env=self.env | env,
                text=True,
                stdin=subprocess.PIPE,
                stdout=file,
            )
        self.commands.append(process)
        return process

    def logs(self) -> str:
        """Return the output of all processes that systemctl has started."""
        return "".join(path.read_text() for path in sorted((self.folder / "log").iterdir()))

    def close(self) -> None:
        """End everything that runs."""
        for process in self.commands:
            process.kill()
            process.communicate()
        self.systemd.close()


def _read_environment(path: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in path.read_text().splitlines())

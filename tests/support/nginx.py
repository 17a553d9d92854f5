"""nginx with the configuration of the guide to production, on ports and in a folder of the test."""

from __future__ import annotations

import datetime as dt
import getpass
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .blocks import ROOT, code_blocks
from .programs import require_program
from .servers import Server, free_port

PAGE = ROOT / "docs" / "how-to" / "production.md"
# the rest of a configuration, which nginx's packages bring
MAIN = """\
daemon off;
user {user};
worker_processes 2;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 1024; }}
http {{
    access_log access.log;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
{site}
}}
"""


def documented_configuration() -> str:
    (block,) = code_blocks(PAGE, "nginx")
    return str(block)


# a proxy that does not pass WebSockets on, as the simplest tutorials configure it
WRONG_SITE = """
server {
    listen 127.0.0.1:{port};
    location / { proxy_pass http://127.0.0.1:{upstream}; }
}
"""


class Nginx(Server):
    """nginx with a configuration of sites, in which ``{port}`` is its own port."""

    def __init__(self, folder: Path, site: str) -> None:
        super().__init__([require_nginx(), "-p", str(folder), "-e", "error.log", "-c", "main.conf"])
        self.folder = folder
        site = site.replace("{port}", str(self.port))
        (folder / "main.conf").write_text(MAIN.format(user=getpass.getuser(), site=site))

    @property
    def errors(self) -> str:
        """The text of the error log."""
        return (self.folder / "error.log").read_text()


class DocumentedNginx(Nginx):
    """nginx in front of two servers, which runs as the user of the test.

    Only ports, paths and certificates differ from the documented configuration.
    """

    def __init__(self, folder: Path, upstreams: tuple[int, int]) -> None:
        certificate, key = write_certificate(folder)
        site = documented_configuration()
        for documented, used in {
            "127.0.0.1:8001": f"127.0.0.1:{upstreams[0]}",
            "127.0.0.1:8002": f"127.0.0.1:{upstreams[1]}",
            "listen 443 ssl": "listen 127.0.0.1:{port} ssl",
            "listen [::]:443 ssl": "listen 127.0.0.2:{port} ssl",
            "listen 80;": f"listen 127.0.0.1:{free_port()};",
            "listen [::]:80;": "",
            "/etc/letsencrypt/live/example.com/fullchain.pem": str(certificate),
            "/etc/letsencrypt/live/example.com/privkey.pem": str(key),
            "/var/www/mysite/static/": f"{folder}/static/",
        }.items():
            assert site.count(documented) == 1, documented
            site = site.replace(documented, used)
        (folder / "static").mkdir()
        super().__init__(folder, site)
        self.tls = ssl.create_default_context(cafile=str(certificate))

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"


def require_nginx() -> str:
    """Return the path of nginx. Without it, skip the test; in CI, fail it."""
    return require_program("nginx")


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate for 127.0.0.1 and localhost, and its key; return their paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "certificate.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths

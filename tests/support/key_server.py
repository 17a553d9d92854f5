"""An HTTP server of the public keys of an identity provider."""

import json
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm


def private_key():
    """Return a new RSA key."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class KeyServer:
    """Serves public keys, and counts the requests. Use it as a context manager."""

    def __init__(self):
        # private keys by key id; None for a key without an id
        self.keys = {"one": private_key()}
        # further entries of the key set
        self.extra = []
        self.requests = 0
        # status of the responses, or a body instead of the keys
        self.status, self.body = 200, None
        # while this is not set, a byte of the response is sent now and then, but not the keys
        self.answering = threading.Event()
        self.answering.set()

        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.requests += 1
                self.send_response(server.status)
                self.end_headers()
                with suppress(OSError):  # the client has closed the connection
                    while not server.answering.wait(0.2):
                        self.wfile.write(b" ")
                    body = json.dumps(server.key_set()) if server.body is None else server.body
                    self.wfile.write(body.encode())

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/keys"

    def key_set(self):
        """Return the key set that is served (RFC 7517)."""
        return {
            "keys": [
                *self.extra,
                *(
                    {
                        **RSAAlgorithm.to_jwk(key.public_key(), as_dict=True),
                        **({} if kid is None else {"kid": kid}),
                        "use": "sig",
                    }
                    for kid, key in self.keys.items()
                ),
            ]
        }

    def sign(self, subject, kid="one", key=None, **claims):
        """Return a token that names the key ``kid``."""
        claims = {
            "sub": str(subject),
            "exp": datetime.now(UTC) + timedelta(hours=1),
            **claims,
        }
        headers = None if kid is None else {"kid": kid}
        return jwt.encode(claims, key or self.keys[kid], "RS256", headers)

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self.answering.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

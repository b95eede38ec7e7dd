"""A token service over TLS, whose tokens docker-registry and distribution accept."""

import base64
import json
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, urlsplit

import httpx

SERVICE: Final = "registry"
ISSUER: Final = "issuer"
LIFETIME: Final = 300
"""The lifetime of a token in seconds."""


class Authority(NamedTuple):
    """A certificate authority of the tests, and a certificate for 127.0.0.1."""

    ca: Path
    certificate: Path
    key: Path


def make_authority(folder: Path) -> Authority:
    """Make the keys and certificates in a folder."""

    def openssl(*arguments: str) -> None:
        command = ["openssl", *arguments]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)

    new = ("req", "-new", "-newkey", "rsa:2048", "-nodes")
    about = ("-subj", "/CN=made-up CA", "-addext", "keyUsage=critical,keyCertSign")
    openssl(*new, "-x509", "-days", "2", *about, "-keyout", "ca.key", "-out", "ca.crt")
    openssl(*new, "-subj", "/CN=127.0.0.1", "-keyout", "server.key", "-out", "server.csr")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n")
    openssl(
        *("x509", "-req", "-in", "server.csr", "-days", "2", "-CA", "ca.crt", "-CAkey", "ca.key"),
        *("-CAcreateserial", "-extfile", "names", "-out", "server.crt"),
    )
    return Authority(folder / "ca.crt", folder / "server.crt", folder / "server.key")


class TokenService:
    """A service that signs JSON Web Tokens with the key of the authority.

    Attributes:
        url: The realm of the challenges.
        requested: The user and the scope of each request.
    """

    def __init__(self, authority: Authority, user: str, password: str) -> None:
        self.requested: list[tuple[str, str]] = []
        self._authority = authority
        self._user = user
        self._password = password
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.certificate, authority.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_port}/token"

    @contextmanager
    def serving(self) -> Iterator["TokenService"]:
        """Serve in this block."""
        thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def access(self) -> dict[str, Any]:
        """Return the ``auth`` section of a registry that requires these tokens."""
        return {
            "token": {
                "realm": self.url,
                "service": SERVICE,
                "issuer": ISSUER,
                "rootcertbundle": str(self._authority.ca),
            }
        }

    def token(self, scope: str) -> str:
        """Return a token for a scope such as ``repository:team/api:pull``."""
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        now = int(time.time())
        access = [{"type": kind, "name": name, "actions": actions.split(",")}]
        lines = self._authority.certificate.read_text().splitlines()[1:-1]
        header = {"typ": "JWT", "alg": "RS256", "x5c": ["".join(lines)]}
        claims = {
            "iss": ISSUER,
            "sub": self._user,
            "aud": SERVICE,
            "access": access,
            "exp": now + LIFETIME,
            "nbf": now - 60,
            "iat": now,
            "jti": "1",
        }
        signed = b".".join(_base64(json.dumps(part).encode()) for part in (header, claims))
        sign = ["openssl", "dgst", "-sha256", "-sign", str(self._authority.key)]
        signature = subprocess.run(
            sign, input=signed, check=True, capture_output=True, timeout=60
        ).stdout
        return (signed + b"." + _base64(signature)).decode()

    def _answer(self, scope: str) -> bytes:
        return json.dumps({"token": self.token(scope), "expires_in": LIFETIME}).encode()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 30

            def do_GET(self) -> None:
                scope = parse_qs(urlsplit(self.path).query).get("scope", [""])[0]
                sent = self.headers.get("Authorization", "").partition(" ")[2]
                user, _, password = base64.b64decode(sent).decode().partition(":")
                service.requested.append((user, scope))
                accepted = (user, password) == (service._user, service._password)
                body = service._answer(scope) if accepted else b""
                self.send_response(200 if accepted else 401)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's name
                pass

        return Handler


class PushTokens:
    """Adds a token that permits everything in the repository of a request."""

    def __init__(self, service: TokenService) -> None:
        self._service = service
        self._tokens: dict[tuple[str, int], str] = {}
        self._lock = Lock()

    def __call__(self, request: httpx.Request) -> httpx.Request:
        name = request.url.path.removeprefix("/v2/")
        for part in ("/manifests/", "/blobs/", "/tags/"):
            name = name.partition(part)[0]
        key = name, int(time.monotonic() / (LIFETIME / 2))  # another token long before it expires
        with self._lock:
            if key not in self._tokens:
                self._tokens[key] = self._service.token(f"repository:{name}:pull,push,delete")
        request.headers["Authorization"] = f"Bearer {self._tokens[key]}"
        return request


def _base64(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")

"""Certificates: those that a registry is trusted by, and the one that tagsync shows."""

import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tagsync.errors import ConfigError, Unreachable
from tagsync.registries.client import Client, Limits
from tagsync.registries.oci.api import REFUSALS
from tagsync.registries.tls import Trust

pytestmark = pytest.mark.processes


def certificate(folder: Path, name: str, *options: str) -> tuple[Path, Path]:
    """Create a certificate for 127.0.0.1 that signs itself, and its key."""
    cert, key = folder / f"{name}.pem", folder / f"{name}-key.pem"
    command = (
        f"openssl req -x509 -newkey rsa:2048 -keyout {key} -out {cert} -days 2 -subj"
        f" /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 {' '.join(options) or '-nodes'}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return cert, key


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with certificates."""
    folder = tmp_path_factory.mktemp("certificates")
    certificate(folder, "own")
    certificate(folder, "other")
    certificate(folder, "locked", "-passout", "pass:made-up")
    return folder


@pytest.fixture(scope="module")
def endpoint(folder: Path) -> Iterator[str]:
    """Run a server that accepts only clients with a certificate; yield its URL."""
    with serve(folder) as url:
        yield url


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Run a server that accepts only clients with a certificate, and redirects ``/to/URL``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302 if self.path.startswith("/to/") else 200)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the parameter's name in http.server
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "own.pem", folder / "own-key.pem")
    context.load_verify_locations(folder / "own.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def status(endpoint: str, trust: Trust, path: str = "/") -> int:
    limits = Limits(retry_for=0.001)
    with closing(Client(endpoint, None, REFUSALS, limits, trust=trust)) as client:
        return client.get(path, {}, 1000).status


def test_client_certificate_is_shown(endpoint: str, folder: Path) -> None:
    """A registry that wants a client certificate gets the configured one."""
    cert, key = folder / "own.pem", folder / "own-key.pem"
    both = folder / "both.pem"
    both.write_bytes(key.read_bytes() + cert.read_bytes())
    assert status(endpoint, Trust(cert, cert, key)) == 200
    assert status(endpoint, Trust(cert, both)) == 200
    for trust in (Trust(cert), Trust(cert, folder / "other.pem", folder / "other-key.pem")):
        with pytest.raises(Unreachable):
            status(endpoint, trust)


def test_client_certificate_is_not_shown_after_a_redirect(endpoint: str, folder: Path) -> None:
    """Only the registry's own scheme, host and port get the client certificate."""
    trust = Trust(folder / "own.pem", folder / "own.pem", folder / "own-key.pem")
    assert status(endpoint, trust, f"/to/{endpoint}/") == 200
    with serve(folder) as other:
        assert status(other, trust) == 200
        with pytest.raises(Unreachable):
            status(endpoint, trust, f"/to/{other}/")


def test_client_certificate_is_not_shown_by_a_sibling_at_another_host(
    endpoint: str, folder: Path
) -> None:
    """Another interface at the registry's origin gets the client certificate, and no other host."""
    trust = Trust(folder / "own.pem", folder / "own.pem", folder / "own-key.pem")
    limits = Limits(retry_for=0.001)
    with (
        serve(folder) as other,
        closing(Client(endpoint, None, REFUSALS, limits, trust=trust)) as at,
    ):
        with closing(at.sibling(f"{endpoint}/api", None, tuple)) as same:
            assert same.get("/", {}, 1000).status == 200
        with closing(at.sibling(other, None, tuple)) as elsewhere, pytest.raises(Unreachable):
            elsewhere.get("/", {}, 1000)


@pytest.mark.parametrize(
    ("cert", "key", "named"),
    [
        ("missing.pem", None, "client_cert_file .*missing.pem cannot be read"),
        ("own.pem", "missing.pem", "client_key_file .*missing.pem cannot be read"),
        ("own.pem", None, "cannot be used with the key"),
        ("own.pem", "other-key.pem", "belong together"),
        ("locked.pem", "locked-key.pem", "no password"),
    ],
)
def test_unusable_files_are_named(folder: Path, cert: str, key: str | None, named: str) -> None:
    """The error for a certificate or a key that cannot be used names the file."""
    with pytest.raises(ConfigError, match=named):
        Trust(None, folder / cert, folder / key if key else None).context()

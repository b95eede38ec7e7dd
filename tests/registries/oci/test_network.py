"""OCI registries over real connections: reuse, proxies, and other hosts."""

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import pytest

from tagsync.models import Listing
from tagsync.registries import open_registry
from tagsync.registries.credentials import NoCredential
from tests.support.docker_registry import digest_of

pytestmark = pytest.mark.processes

PASSWORD = "made-up-password"
BASIC = base64.b64encode(f"reader:{PASSWORD}".encode()).decode()


class Received(NamedTuple):
    """A request as a server received it.

    Attributes:
        target: The target in the request line.
        connection: The port of the client.
    """

    method: str
    target: str
    authorization: str | None
    connection: int


Answer = tuple[int, dict[str, str], bytes]


@contextmanager
def serving(answer: Callable[[Received], Answer]) -> Iterator[tuple[str, list[Received]]]:
    """Run a server on loopback; yield its host with the port, and its requests."""
    asked: list[Received] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            authorization = self.headers.get("Authorization")
            request = Received(self.command, self.path, authorization, self.client_address[1])
            asked.append(request)
            status, headers, body = answer(request)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815  http.server calls it by this name

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the parameter's name in http.server
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def registry(asked: Received) -> Answer:
    """Answer as a registry of one repository."""
    if asked.target.partition("?")[0].endswith("/tags/list"):
        return 200, {}, json.dumps({"tags": [f"v{number}" for number in range(50)]}).encode()
    digest = digest_of(asked.target.rpartition("/")[2].encode())
    return 200, {"Docker-Content-Digest": digest}, b""


def sync(
    folder: Path, endpoint: str, auth: str = 'kind = "none"', **environment: str
) -> "subprocess.CompletedProcess[str]":
    (folder / "config.toml").write_text(
        f'[[registries]]\nname = "reg"\nkind = "oci"\nendpoint = "{endpoint}"\nlist = "tags"\n'
        f'retry_for = "1ms"\nrequests_per_second = 1000\n[registries.auth]\n{auth}\n'
        '[[registries.watch]]\nrepositories = ["team/a"]\n'
    )
    return subprocess.run(
        [sys.executable, "-m", "tagsync", "--log-format", "json", "sync", "--format", "json"],
        cwd=folder,
        env={"SECRET": PASSWORD, **environment},
        capture_output=True,
        check=False,
        timeout=30,
        text=True,
    )


AUTH = 'kind = "basic"\nusername = "reader"\npassword = "env:SECRET"'


def test_connections_are_reused() -> None:
    """A poll opens at most as many connections as requests at once."""
    with serving(registry) as (host, asked):
        opened = open_registry(
            f"http://{host}",
            NoCredential(),
            timeout=10,
            retry_for=5,
            max_listing_bytes=2**20,
            requests_per_second=10_000,
            connections=4,
            kind="oci",
        )
        listing = opened.list_tags("team/a")
        opened.close()
    assert isinstance(listing, Listing)
    assert len(listing.tags) == 50
    assert len(asked) == 51
    assert len({request.connection for request in asked}) <= 4


def test_cost_of_a_poll_is_logged(tmp_path: Path) -> None:
    """The log line of a poll has the number of requests, bytes and seconds."""
    with serving(registry) as (host, _):
        done = sync(tmp_path, f"http://{host}")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    (finished,) = [line for line in lines if line["event"] == "sync.finished"]
    assert finished["requests"] == 51
    assert finished["bytes"] > 300
    assert finished["seconds"] > 0


def test_proxy_is_used(tmp_path: Path) -> None:
    """Requests go to the proxy that the environment names."""
    with serving(registry) as (proxy, asked):
        done = sync(tmp_path, "http://registry.invalid", HTTP_PROXY=f"http://{proxy}")
    assert done.returncode == 0, done.stderr
    assert len(asked) == 51
    assert asked[0].target == "http://registry.invalid/v2/team/a/tags/list?n=1000"


def test_no_proxy_is_respected(tmp_path: Path) -> None:
    """Requests to a host in NO_PROXY do not go to the proxy."""
    with serving(registry) as (host, asked), serving(registry) as (proxy, of_proxy):
        done = sync(tmp_path, f"http://{host}", HTTP_PROXY=f"http://{proxy}", NO_PROXY="127.0.0.1")
    assert done.returncode == 0, done.stderr
    assert len(asked) == 51
    assert of_proxy == []


def test_redirect_target_gets_no_credentials(tmp_path: Path) -> None:
    """The target of a redirect to another host gets the request, without credentials."""

    def elsewhere(asked: Received) -> Answer:
        if asked.authorization is None:
            return 401, {"WWW-Authenticate": 'Basic realm="x"'}, b""
        return 307, {"Location": f"http://{thief}{asked.target}"}, b""

    with serving(registry) as (thief, stolen), serving(elsewhere) as (host, asked):
        done = sync(tmp_path, f"http://{host}", AUTH)
    assert done.returncode == 0, done.stdout
    assert {request.authorization for request in asked} == {None, f"Basic {BASIC}"}
    assert {request.authorization for request in stolen} == {None}
    assert len(stolen) == 51
    assert PASSWORD not in done.stdout + done.stderr


def test_next_page_on_another_host_gets_no_request(tmp_path: Path) -> None:
    """A next page on another host gets no request."""

    def paged(asked: Received) -> Answer:
        if asked.authorization is None:
            return 401, {"WWW-Authenticate": 'Basic realm="x"'}, b""
        link = f'<http://{thief}/v2/team/a/tags/list?last=v1>; rel="next"'
        if "last" in asked.target:
            link = f'<http://{thief}/v2/>; rel="next"'
        return 200, {"Link": link}, b'{"tags":["v1"]}'

    with serving(registry) as (thief, stolen), serving(paged) as (host, _):
        done = sync(tmp_path, f"http://{host}", AUTH)
    assert done.returncode == 1
    assert "cannot read" in done.stdout
    assert stolen == []

"""Hostile servers: endless, slow and large answers, and wrong certificates."""

import gzip
import json
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path

import httpx
import msgspec
import pytest
import stamina

import tagsync
from tagsync.config import parse
from tagsync.config.tables import RegistryTable
from tagsync.emulator import Emulator
from tagsync.errors import ConfigError, RegistryError, ResponseTooLarge, Unreachable, Untrusted
from tagsync.models import Listing
from tagsync.registries.client import Client, Limits
from tagsync.registries.deadline import bounded, within
from tagsync.registries.pacing import Pacer
from tagsync.registries.redirects import MAX_REDIRECTS
from tagsync.registries.responses import Answer
from tagsync.registries.swr.api import REFUSALS, _decode_tags, tags_path
from tagsync.registries.swr.paging import MAX_PAGES, MAX_ROWS, PagedRead
from tests.support.http_client import client_of, get
from tests.support.http_server import HEAD, Talk, says, server
from tests.support.swr import ask, rows_of

pytestmark = pytest.mark.processes

ROOT = Path(tagsync.__file__).parent


@pytest.fixture(autouse=True)
def no_retries() -> Iterator[None]:
    """Send each request once."""
    with stamina.set_testing(True, attempts=1):
        yield


# Time.


def ticking() -> Callable[[], float]:
    """Return a clock on which a second passes with each call."""
    seconds = count(1000)
    return lambda: float(next(seconds))


def forever(*pieces: bytes) -> Talk:
    """Return a server that sends the first piece once, and the others endlessly."""

    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(pieces[0])
        while True:
            for piece in pieces[1:]:
                connection.sendall(piece)

    return talk


GZIP = b"Content-Encoding: gzip\r\nContent-Length: 1000000000\r\n\r\n"
NEVER_DONE = {
    "a header byte by byte": forever(HEAD + b"X-Drip: ", b"x"),
    "interim answers": forever(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "a body byte by byte": forever(HEAD + b"Content-Length: 1000000000\r\n\r\n", b" "),
    "chunks of one byte": forever(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    # A gzip header with an endless comment, and empty deflate blocks: neither decompresses to any
    # byte, so that limits of size and of time between bytes do not apply.
    "a comment in gzip": forever(HEAD + GZIP + b"\x1f\x8b\x08\x10" + bytes(6), b"x"),
    "empty blocks": forever(HEAD + GZIP + gzip.compress(b"")[:10], b"\0\0\0\xff\xff"),
}


@pytest.mark.parametrize("talk", NEVER_DONE.values(), ids=NEVER_DONE.keys())
def test_endless_answer_is_aborted(talk: Talk) -> None:
    """The whole request has a deadline, although each byte arrives in time."""
    with server(talk) as host:
        client = Client(
            f"http://{host}",
            None,
            REFUSALS,
            Limits(timeout=5),
            transport=httpx.HTTPTransport(),
            pacer=Pacer(1e6),
            monotonic=ticking(),
        )
        with pytest.raises(Unreachable, match=r"did not finish its answer within 5 s|broke"):
            get(client)


def test_deadline_holds_for_proxies() -> None:
    """An answer that comes through a proxy has the same deadline."""
    with (
        server(forever(HEAD + b"X-Drip: ", b"x")) as host,
        httpx.Client(
            transport=bounded(httpx.HTTPTransport(proxy=f"http://{host}")), timeout=5
        ) as client,
        pytest.raises(httpx.TimeoutException),
        within(5, ticking()),
    ):
        client.get("http://registry.invalid/")


def test_deadline_ends_with_its_request() -> None:
    """A reused connection has a new deadline for each request."""
    with Emulator() as emulator:
        emulator.push("team/api", "v1", "one")
        client = Client(emulator.url, None, REFUSALS, Limits(timeout=60))
        with closing(client):
            for _ in range(20):
                client.get(tags_path("team/api"), {"offset": 0, "limit": 9}, 10**6)


# Size.


@pytest.mark.parametrize(
    "head",
    [
        b"X-Long: " + b"x" * 200_000 + b"\r\n",
        b"".join(b"X-%d: x\r\n" % number for number in range(20_000)),
        b" " * 200_000,
    ],
    ids=["one long header", "many headers", "no header at all"],
)
def test_header_size_is_bounded(head: bytes) -> None:
    """Headers of 100 KiB and more, one or many, are an error."""
    talk = says(HEAD + head + b"Content-Length: 2\r\n\r\n[]")
    with server(talk) as host, pytest.raises(Unreachable, match="broke") as caught:
        get(client_of(None, url=f"http://{host}"))
    assert len(str(caught.value)) < 500


def test_reason_phrase_is_not_quoted() -> None:
    """The error does not contain what a server writes after the status."""
    talk = says(b"HTTP/1.1 404 " + b"\x1b[2J" * 10_000 + b"\r\nContent-Length: 0\r\n\r\n")
    with server(talk) as host, pytest.raises(RegistryError) as caught:
        get(client_of(None, url=f"http://{host}"))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def read_without_end(rows_a_page: int, total: int | None = None) -> int:
    """Return how many pages of new rows are requested until the read ends."""
    numbers = count()
    fetched = 0
    headers = httpx.Headers({} if total is None else {"Content-Range": f"0-1/{total}"})

    def fetch(_offset: int, limit: int, _max_bytes: int) -> Answer:
        nonlocal fetched
        fetched += 1
        rows = rows_of([next(numbers) for _ in range(min(rows_a_page, limit))])
        return Answer("http://127.0.0.1/tags", 200, headers, json.dumps(rows).encode())

    reading = PagedRead(
        fetch,
        _decode_tags,
        lambda row: row.Tag,
        2**30,
    )
    with pytest.raises(ResponseTooLarge) as caught:
        reading.read()
    assert "the most that tagsync accepts" in str(caught.value)
    return fetched


@pytest.mark.parametrize("total", [None, 10**6])
def test_number_of_pages_is_bounded(total: int | None) -> None:
    """Pages of one row end at the limit of pages, long before that of bytes."""
    assert read_without_end(1, total) <= MAX_PAGES + 2


def test_huge_total_is_refused_at_once() -> None:
    """A total of a quintillion rows is refused after the first page."""
    assert read_without_end(10, 10**17) == 1


def test_rows_are_counted_before_decoding() -> None:
    """A body with too many rows is refused, however small the rows are."""
    body = b"[" + b'{"Tag":"a"},' * MAX_ROWS + b'{ "Tag":"a"}]'
    with pytest.raises(ResponseTooLarge, match="1000000 rows"):
        ask(lambda _: httpx.Response(200, content=body))


def test_manifests_do_not_count_as_rows() -> None:
    """Braces within manifests, which are strings, are not counted as rows."""
    manifest = '{"a":' * 300_000
    rows = [{"Tag": f"v{number}", "manifest": manifest} for number in range(4)]
    found = ask(lambda _: httpx.Response(200, json=rows), bound=2**26)
    assert isinstance(found, Listing)
    assert len(found.tags) == 4


# Trust.


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a CA, and certificates: valid, for another host, expired, self-signed."""
    folder = tmp_path_factory.mktemp("authority")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(
        "req", "-x509", *new, "-days", "30", "-subj", "/CN=A CA of our own",
        "-keyout", "ca.key", "-out", "ca.pem",
    )  # fmt: skip
    for name, host, validity in (
        ("good", "IP:127.0.0.1", ()),
        ("wrong-host", "DNS:registry.invalid", ()),
        ("expired", "IP:127.0.0.1", ("20200101000000Z", "20210101000000Z")),
    ):
        openssl(
            "req", *new, "-subj", f"/CN={name}", "-addext", f"subjectAltName={host}",
            "-keyout", f"{name}.key", "-out", f"{name}.csr",
        )  # fmt: skip
        _sign(openssl, folder, name, validity)
    openssl(
        "req", "-x509", *new, "-days", "30", "-subj", "/CN=127.0.0.1",
        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "self-signed.key",
        "-out", "self-signed.pem",
    )  # fmt: skip
    return folder


def _sign(openssl: Callable[..., None], folder: Path, name: str, validity: tuple[str, ...]) -> None:
    """Sign a request by the CA, for a month or between two past dates."""
    config = folder / f"{name}.cnf"
    config.write_text(
        "[ca]\ndefault_ca = it\n[it]\n"
        f"database = {name}.index\nnew_certs_dir = .\nserial = {name}.serial\n"
        "default_md = sha256\npolicy = any\ncopy_extensions = copy\n"
        "[any]\ncommonName = supplied\n"
    )
    (folder / f"{name}.index").touch()
    (folder / f"{name}.serial").write_text("01")
    period = ("-startdate", validity[0], "-enddate", validity[1]) if validity else ("-days", "30")
    openssl(
        "ca", "-batch", "-config", config.name, "-cert", "ca.pem", "-keyfile", "ca.key",
        "-in", f"{name}.csr", "-out", f"{name}.pem", "-notext", *period,
    )  # fmt: skip


@contextmanager
def secure(authority: Path, name: str) -> Iterator[tuple[str, list[bytes]]]:
    """Run a TLS server that lists no tags; yield its host and what it received."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / f"{name}.pem", authority / f"{name}.key")
    received: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        with suppress(OSError), context.wrap_socket(connection, server_side=True) as stream:
            received.append(stream.recv(65536))
            head = HEAD + b"Content-Range: 0-0/0\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
            stream.sendall(head + b"[]")

    with server(talk) as host:
        yield host, received


NO_TRUST = ["good", "wrong-host", "expired", "self-signed"]
"""All certificates: without its CA, the good one is not trusted either."""

SWITCHES = {
    "PYTHONHTTPSVERIFY": "0",
    "CURL_CA_BUNDLE": "",
    "REQUESTS_CA_BUNDLE": "",
    "SSL_VERIFY": "0",
    "HTTPX_VERIFY": "0",
    "NODE_TLS_REJECT_UNAUTHORIZED": "0",
    "GIT_SSL_NO_VERIFY": "1",
    "SSL_CERT_FILE": "",
    "SSL_CERT_DIR": "",
}
"""Variables that disable verification in other programs, or seem to."""


def sync(folder: Path, host: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run one pass over one repository of a TLS server."""
    (folder / "config.toml").write_text(
        f'[[registries]]\nname = "swr"\nendpoint = "https://{host}"\nretry_for = "1ms"\n'
        '[registries.auth]\nkind = "token"\ntoken = "env:SWR_TOKEN"\n'
        '[[registries.watch]]\nrepositories = ["team/api"]\n'
    )
    return subprocess.run(
        [sys.executable, "-m", "tagsync", "sync", "--format", "json"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "SWR_TOKEN": "made-up-token", **variables},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("name", NO_TRUST)
def test_untrusted_server_gets_no_request(name: str, authority: Path, tmp_path: Path) -> None:
    """An unknown CA, another host name or an expired date prevent every request."""
    with secure(authority, name) as (host, received):
        finished = sync(tmp_path, host, **SWITCHES)
    assert finished.returncode == 1, finished
    assert "showed a certificate that is not trusted" in finished.stdout
    assert not any(received)


@pytest.mark.parametrize(
    ("name", "trusted"), [("good", True), ("wrong-host", False), ("expired", False)]
)
def test_additional_ca_is_trusted(
    name: str, trusted: bool, authority: Path, tmp_path: Path
) -> None:
    """$SSL_CERT_FILE adds a CA; host name and dates are checked nevertheless."""
    with secure(authority, name) as (host, received):
        finished = sync(tmp_path, host, SSL_CERT_FILE=str(authority / "ca.pem"))
    assert (finished.returncode == 0) == trusted, finished
    assert any(received) == trusted


def test_untrusted_certificate_is_its_own_error(authority: Path) -> None:
    """An untrusted certificate is an error of its own kind that names the host."""
    with (
        secure(authority, "self-signed") as (host, received),
        pytest.raises(Untrusted, match="not trusted") as caught,
    ):
        get(client_of(None, url=f"https://{host}"))
    assert host in str(caught.value)
    assert not any(received)


@pytest.mark.parametrize(
    "key",
    ["verify", "verify_tls", "tls_verify", "ssl_verify", "insecure", "skip_verify", "tls", "ssl"],
)
@pytest.mark.parametrize("value", ["false", "true", '"none"'])
def test_no_key_disables_verification(key: str, value: str) -> None:
    """A key that would disable verification is unknown, in both tables."""
    registry = '[[registries]]\nname = "swr"\nendpoint = "https://swr-api.example.com"\n'
    auth = '[registries.auth]\nkind = "token"\ntoken = "env:T"\n'
    for text in (f"{registry}{key} = {value}\n{auth}", f"{registry}{auth}{key} = {value}\n"):
        with pytest.raises(ConfigError, match=f"there is no key '{key}'"):
            parse(text, {}, Path())


def test_no_key_weakens_trust() -> None:
    """The keys about certificates add trusted ones, or name the one that tagsync shows."""
    about = {
        field.name
        for field in msgspec.structs.fields(RegistryTable)
        if any(word in field.name for word in ("tls", "ssl", "cert", "verif", "secure", "ca_"))
    }
    assert about <= {"ca_file", "client_cert_file", "client_key_file"}


def test_no_code_disables_verification() -> None:
    """No code in the package disables the check of certificates or host names."""
    for source in sorted(ROOT.rglob("*.py")):
        text = source.read_text()
        for word in ("CERT_NONE", "verify=False", "check_hostname", "_create_unverified_context"):
            assert word not in text, f"{source}: {word}"


# Redirects.


def test_redirect_loop_is_bounded() -> None:
    """A server that redirects to itself without end gets a few requests."""
    asked: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        asked.append(connection.recv(65536))
        connection.sendall(
            b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /v2/list\r\nContent-Length: 0\r\n"
            b"Connection: close\r\n\r\n"
        )

    with server(talk) as host, pytest.raises(RegistryError, match="led through 5 redirects"):
        get(client_of(None, url=f"http://{host}"))
    assert len(asked) == MAX_REDIRECTS + 1

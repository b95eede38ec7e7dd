"""What a hostile server cannot do: send without end, take for ever, or pass for another."""

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
    """Takes each failure as final."""
    with stamina.set_testing(True, attempts=1):
        yield


# Time.


def ticking() -> Callable[[], float]:
    """A clock on which each look takes a second."""
    seconds = count(1000)
    return lambda: float(next(seconds))


def forever(*pieces: bytes) -> Talk:
    """Says the first piece, and then the others again and again until nobody listens."""

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
    # A gzip header whose comment never ends, and deflate blocks that hold nothing: what comes out
    # of either is not a byte, so that neither its size nor its coming can be watched.
    "a comment in gzip": forever(HEAD + GZIP + b"\x1f\x8b\x08\x10" + bytes(6), b"x"),
    "empty blocks": forever(HEAD + GZIP + gzip.compress(b"")[:10], b"\0\0\0\xff\xff"),
}


@pytest.mark.parametrize("talk", NEVER_DONE.values(), ids=NEVER_DONE.keys())
def test_an_answer_that_never_ends_is_given_up(talk: Talk) -> None:
    """However an answer drips, every byte of it in time, the whole request has one deadline."""
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


def test_a_proxy_is_bounded_too() -> None:
    """What comes through a proxy of the environment has the same deadline."""
    with (
        server(forever(HEAD + b"X-Drip: ", b"x")) as host,
        bounded(httpx.Client(proxy=f"http://{host}", timeout=5)) as client,
        pytest.raises(httpx.TimeoutException),
        within(5, ticking()),
    ):
        client.get("http://registry.invalid/")


def test_a_deadline_ends_with_its_request() -> None:
    """A connection that is used again is not late because of the request before."""
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
def test_headers_have_a_bound(head: bytes) -> None:
    """Headers of 100 KiB and more, in one or in many, are no answer."""
    talk = says(HEAD + head + b"Content-Length: 2\r\n\r\n[]")
    with server(talk) as host, pytest.raises(Unreachable, match="broke") as caught:
        get(client_of(None, url=f"http://{host}"))
    assert len(str(caught.value)) < 500


def test_a_reason_of_any_length_is_not_repeated() -> None:
    """What a server writes after its status is not part of our sentence."""
    talk = says(b"HTTP/1.1 404 " + b"\x1b[2J" * 10_000 + b"\r\nContent-Length: 0\r\n\r\n")
    with server(talk) as host, pytest.raises(RegistryError) as caught:
        get(client_of(None, url=f"http://{host}"))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


def read_without_end(rows_a_page: int, total: int | None = None) -> int:
    """How many pages of fresh rows are fetched until it is enough."""
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
def test_pages_without_end_are_given_up(total: int | None) -> None:
    """Pages of one row each end at the bound of pages, long before that of bytes."""
    assert read_without_end(1, total) <= MAX_PAGES + 2


def test_a_total_beyond_belief_is_given_up_at_once() -> None:
    """Nobody begins to read a quintillion rows."""
    assert read_without_end(10, 10**17) == 1


def test_rows_have_a_bound_before_they_are_objects() -> None:
    """A body of more rows than any list has is refused, however small the rows are."""
    body = b"[" + b'{"Tag":"a"},' * MAX_ROWS + b'{ "Tag":"a"}]'
    with pytest.raises(ResponseTooLarge, match="1000000 rows"):
        ask(lambda _: httpx.Response(200, content=body))


def test_what_only_looks_like_rows_does_not_count() -> None:
    """The braces of manifests, which are texts, are no rows."""
    manifest = '{"a":' * 300_000
    rows = [{"Tag": f"v{number}", "manifest": manifest} for number in range(4)]
    found = ask(lambda _: httpx.Response(200, json=rows), bound=2**26)
    assert isinstance(found, Listing)
    assert len(found.tags) == 4


# Trust.


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CA of our own, and certificates for a good, a wrong and a late server."""
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
    """Signs a request by the CA, for a month or between two moments that are long past."""
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
    """A TLS server with one of the certificates, that lists no tags; and what it was sent."""
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
"""All of them: without its CA even the good one vouches for itself alone."""

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
"""What switches verification off elsewhere, or might be thought to."""


def sync(folder: Path, host: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """One pass by a real process over one repository of a TLS server."""
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
def test_nothing_is_sent_to_whom_nobody_vouches_for(
    name: str, authority: Path, tmp_path: Path
) -> None:
    """An unknown CA, another host's name, a date long past: no request is sent, come what may."""
    with secure(authority, name) as (host, received):
        finished = sync(tmp_path, host, **SWITCHES)
    assert finished.returncode == 1, finished
    assert "showed a certificate that is not trusted" in finished.stdout
    assert not any(received)


@pytest.mark.parametrize(
    ("name", "trusted"), [("good", True), ("wrong-host", False), ("expired", False)]
)
def test_a_ca_of_ones_own_vouches_for_what_it_signed(
    name: str, trusted: bool, authority: Path, tmp_path: Path
) -> None:
    """$SSL_CERT_FILE adds who is trusted; the host's name and the date are held to as ever."""
    with secure(authority, name) as (host, received):
        finished = sync(tmp_path, host, SSL_CERT_FILE=str(authority / "ca.pem"))
    assert (finished.returncode == 0) == trusted, finished
    assert any(received) == trusted


def test_the_client_itself_does_not_trust_either(authority: Path) -> None:
    """A certificate that nobody vouches for is an error of its own kind, that names the host."""
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
def test_no_key_switches_verification_off(key: str, value: str) -> None:
    """A key that would is refused as every unknown one, in a registry and in its credentials."""
    registry = '[[registries]]\nname = "swr"\nendpoint = "https://swr-api.example.com"\n'
    auth = '[registries.auth]\nkind = "token"\ntoken = "env:T"\n'
    for text in (f"{registry}{key} = {value}\n{auth}", f"{registry}{auth}{key} = {value}\n"):
        with pytest.raises(ConfigError, match=f"there is no key '{key}'"):
            parse(text, {}, Path())


def test_no_key_is_about_trust_but_for_more_of_it() -> None:
    """No key of a registry is named for verifying; a CA's file is the most there may be."""
    about = {
        field.name
        for field in msgspec.structs.fields(RegistryTable)
        if any(word in field.name for word in ("tls", "ssl", "cert", "verif", "secure", "ca_"))
    }
    assert about <= {"ca_file"}


def test_no_line_of_ours_switches_verification_off() -> None:
    """Nowhere in the package is a certificate, or a host's name, left unchecked."""
    for source in sorted(ROOT.rglob("*.py")):
        text = source.read_text()
        for word in ("CERT_NONE", "verify=False", "check_hostname", "_create_unverified_context"):
            assert word not in text, f"{source}: {word}"


# Where it leads.


def test_redirects_without_end_are_one_request() -> None:
    """A server that points to itself again and again is asked once."""
    asked: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        asked.append(connection.recv(65536))
        connection.sendall(
            b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /v2/list\r\nContent-Length: 0\r\n\r\n"
        )

    with server(talk) as host, pytest.raises(RegistryError, match="it points to /v2/list"):
        get(client_of(None, url=f"http://{host}"))
    assert len(asked) == 1

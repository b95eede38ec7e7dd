"""Debian's docker-registry, filled by skopeo: tagsync and skopeo agree on it."""

import base64
import json
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest

from tagsync.database.store import Store
from tagsync.errors import Untrusted
from tagsync.models import Listing, Repository, Scope
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tagsync.registries import Registry, open_registry
from tagsync.registries.credentials import NoCredential
from tests.support.docker_registry import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    DockerRegistry,
    digest_of,
    require,
    running,
    skopeo,
    skopeo_tags,
)
from tests.support.record import assert_history_is_whole

pytestmark = pytest.mark.processes

require("docker-registry", "skopeo", "openssl")

Query = Callable[..., list[tuple[Any, ...]]]

USER, PASSWORD = "reader", "made-up-password"
HTPASSWD = "reader:$2y$05$gJ8lTGIK1mQp6PFwfS1Z/uNFDfkF1nFJH7TMUYAryvMPRh5VHIwp2"
"""The line that Apache's htpasswd writes for both, with bcrypt as the registry requires."""

BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[DockerRegistry]:
    (folder / "open").mkdir()
    with running(folder / "open") as registry:
        yield registry


@pytest.fixture(scope="module")
def registry(server: DockerRegistry) -> Iterator[Registry]:
    opened = opened_at(server.url)
    yield opened
    opened.close()


def opened_at(url: str, **further: Any) -> Registry:
    """Open the registry at a URL without credentials."""
    return open_registry(
        url,
        NoCredential(),
        timeout=30,
        retry_for=1,
        max_listing_bytes=2**26,
        requests_per_second=100_000,
        connections=8,
        kind="oci",
        **further,
    )


class Layout:
    """An OCI image layout on disk, the source from which skopeo copies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._entries: list[dict[str, Any]] = []
        (folder / "blobs" / "sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def add(self, tag: str, *contents: str) -> str:
        """Add an image, or an index of several images; return its digest."""
        manifests = [self._image(content) for content in contents]
        for number, manifest in enumerate(manifests):
            manifest["platform"] = {"os": "linux", "architecture": ("amd64", "arm64")[number]}
        (entry, *others) = manifests
        if others:
            index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
            entry = self._blob(json.dumps(index).encode(), OCI_INDEX)
        self._entries.append({**entry, "annotations": {"org.opencontainers.image.ref.name": tag}})
        index = {"schemaVersion": 2, "manifests": self._entries}
        (self.folder / "index.json").write_text(json.dumps(index))
        return str(entry["digest"])

    def _image(self, content: str) -> dict[str, Any]:
        layer = f"the layer of {content}".encode()
        diff_ids = {"type": "layers", "diff_ids": [digest_of(layer)]}
        config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": diff_ids}
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self._blob(json.dumps(config).encode(), OCI_CONFIG),
            "layers": [self._blob(layer, OCI_LAYER)],
        }
        return self._blob(json.dumps(manifest).encode(), OCI_MANIFEST)

    def _blob(self, content: bytes, media_type: str) -> dict[str, Any]:
        digest = digest_of(content)
        (self.folder / "blobs" / "sha256" / digest.removeprefix("sha256:")).write_bytes(content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def copy(self, tag: str, to: str) -> None:
        """Let skopeo push the image or index of a tag."""
        source = f"oci:{self.folder}:{tag}"
        skopeo(
            "--insecure-policy",
            "copy",
            "--all",
            "--preserve-digests",
            "--dest-tls-verify=false",
            source,
            f"docker://{to}",
        )


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


def test_skopeo_and_tagsync_agree(
    server: DockerRegistry,
    registry: Registry,
    layout: Layout,
    store: Store,
    query: Query,
    database: Path,
) -> None:
    """After pushes, moves and a deletion, tagsync and skopeo see the same tags."""
    repository = "team/agreed"
    reference = f"{server.host}/{repository}"
    job = Job(Repository("reg", repository), registry, timedelta(minutes=5), manifests=True)
    one, multi = layout.add("one", "one"), layout.add("multi", "amd", "arm")

    def agreed() -> dict[str, str]:
        """Poll, and return the tags that both see."""
        assert poll(job, store).outcome == "ok"
        there = skopeo_tags(server, repository)
        assert dict(query("SELECT tag, digest FROM tags")) == there
        return there

    layout.copy("one", f"{reference}:v1")
    layout.copy("one", f"{reference}:latest")
    layout.copy("multi", f"{reference}:multi")
    assert agreed() == {"v1": one, "latest": one, "multi": multi}
    layout.copy("multi", f"{reference}:latest")
    layout.copy("one", f"{reference}:v1.0")
    layout.copy("multi", f"{reference}:v2")
    assert agreed()["latest"] == multi
    skopeo("delete", "--tls-verify=false", f"docker://{reference}:v1.0")
    assert agreed() == {"latest": multi, "multi": multi, "v2": multi}
    assert query("SELECT tag, kind, moved FROM change_log WHERE id > 3 ORDER BY id") == [
        ("latest", "updated", 1),
        ("v1.0", "added", 0),
        ("v2", "added", 0),
        ("v1", "deleted", 0),
        ("v1.0", "deleted", 0),
    ]
    raw = ("inspect", "--raw", "--tls-verify=false", f"docker://{reference}")
    for digest, manifest in query("SELECT digest, manifest FROM images WHERE digest <> ?", one):
        assert skopeo(*raw[:-1], f"{raw[-1]}@{digest}") == manifest.encode()
    assert query("SELECT platform FROM image_platforms ORDER BY platform") == [
        ("linux/amd64",),
        ("linux/arm64",),
    ]
    assert query("SELECT count(*), sum(verified) FROM images") == [(4, 4)]
    assert_history_is_whole(database)


def test_large_repository_costs_one_head_per_wanted_tag(
    server: DockerRegistry, registry: Registry
) -> None:
    """2,000 tags are listed completely, with one HEAD request per wanted tag."""
    repository = "team/large"
    pushed = {
        "even": server.push(repository, "even", "e"),
        "odd": server.push(repository, "odd", "o"),
    }
    for number in range(1998):
        digest = pushed["odd" if number % 2 else "even"]
        server.tag(repository, f"v{number}", digest)
        pushed[f"v{number}"] = digest
    listing = registry.list_tags(repository)
    assert isinstance(listing, Listing)
    assert {name: tag.digest for name, tag in listing.tags.items()} == pushed
    assert listing.requests == 2001
    listed = skopeo("list-tags", "--tls-verify=false", f"docker://{server.host}/{repository}")
    assert set(json.loads(listed)["Tags"]) == listing.tags.keys()
    few = registry.list_tags(repository, scope=Scope(("even", "v199*")))
    assert isinstance(few, Listing)
    assert few.requests == 1 + 1 + 9
    assert few.tags.keys() == pushed.keys()


# Credentials, certificates, and the command line.


class Authority(NamedTuple):
    """A certificate authority of the tests, and a certificate for 127.0.0.1."""

    ca: Path
    certificate: Path
    key: Path


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

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


class TokenServer:
    """A token service that signs JSON Web Tokens with the key of the authority.

    Attributes:
        asked: The user and the scope of each request.
    """

    def __init__(self, authority: Authority) -> None:
        self.asked: list[tuple[str, str]] = []
        self._authority = authority
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                sent = self.headers.get("Authorization", "")
                user = base64.b64decode(sent.partition(" ")[2]).decode().partition(":")[0]
                scope = query.get("scope", [""])[0]
                outer.asked.append((user, scope))
                good = sent == f"Basic {BASIC}"
                body = json.dumps({"token": outer.token(scope), "expires_in": 300}).encode()
                self.send_response(200 if good else 401)
                self.send_header("Content-Length", str(len(body) if good else 0))
                self.end_headers()
                if good:
                    self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.certificate, authority.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_port}/token"

    @contextmanager
    def serving(self) -> Iterator["TokenServer"]:
        thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def token(self, scope: str, actions: str = "") -> str:
        """Return a token for a scope such as ``repository:team/api:pull``."""
        kind, _, rest = scope.partition(":")
        name, _, asked = rest.rpartition(":")
        now = int(time.time())
        access = [{"type": kind, "name": name, "actions": (actions or asked).split(",")}]
        lines = self._authority.certificate.read_text().splitlines()[1:-1]
        header = {"typ": "JWT", "alg": "RS256", "x5c": ["".join(lines)]}
        claims: dict[str, Any] = {"iss": "issuer", "sub": USER, "aud": "registry", "access": access}
        claims |= {"exp": now + 300, "nbf": now - 60, "iat": now, "jti": "1"}
        signed = b".".join(_base64(json.dumps(part).encode()) for part in (header, claims))
        sign = ["openssl", "dgst", "-sha256", "-sign", str(self._authority.key)]
        signature = subprocess.run(sign, input=signed, check=True, capture_output=True).stdout
        return (signed + b"." + _base64(signature)).decode()


def _base64(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


@pytest.fixture(scope="module")
def guarded(folder: Path) -> Iterator[DockerRegistry]:
    """A registry that requires a user and a password."""
    (folder / "basic").mkdir()
    htpasswd = folder / "htpasswd"
    htpasswd.write_text(HTPASSWD + "\n")
    auth = {"htpasswd": {"realm": "made up", "path": str(htpasswd)}}
    headers = {"Authorization": f"Basic {BASIC}"}
    with running(folder / "basic", auth=auth, headers=headers) as registry:
        for name in ("a", "b"):
            registry.push(f"team/{name}", "v1", name)
        yield registry


@pytest.fixture(scope="module")
def tokens(authority: Authority) -> Iterator[TokenServer]:
    with TokenServer(authority).serving() as server:
        yield server


@pytest.fixture(scope="module")
def with_tokens(
    folder: Path, authority: Authority, tokens: TokenServer
) -> Iterator[DockerRegistry]:
    """A registry with TLS that requires tokens."""
    (folder / "token").mkdir()
    auth = {
        "token": {
            "realm": tokens.url,
            "service": "registry",
            "issuer": "issuer",
            "rootcertbundle": str(authority.ca),
        }
    }
    context = ssl.create_default_context(cafile=str(authority.ca))
    tls = (authority.certificate, authority.key)
    with running(folder / "token", auth=auth, tls=tls, verify=context) as registry:
        for name in ("a", "b"):
            token = tokens.token(f"repository:team/{name}:pull", "pull,push")
            registry.client.headers["Authorization"] = f"Bearer {token}"
            registry.push(f"team/{name}", "v1", name)
        del registry.client.headers["Authorization"]
        yield registry


def tagsync(
    folder: Path,
    command: str,
    registry: str,
    auth: str,
    environment: Mapping[str, str] | None = None,
) -> tuple[int, list[dict[str, Any]], str]:
    """Run a command on two repositories; return its status, rows and all its output."""
    (folder / "config.toml").write_text(
        f'[[registries]]\nname = "reg"\nkind = "oci"\nretry_for = "1ms"\n{registry}\n'
        f"[registries.auth]\n{auth}\n"
        '[[registries.watch]]\nrepositories = ["team/a", "team/b"]\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "tagsync", "--log-level", "debug", command, "--format", "json"],
        cwd=folder,
        env={"SECRET": PASSWORD, **(environment or {})},
        capture_output=True,
        check=False,
        timeout=60,
        text=True,
    )
    written = done.stdout + done.stderr
    assert "Traceback" not in written
    for secret in (PASSWORD, BASIC):
        assert secret not in written
        assert not any(secret.encode() in path.read_bytes() for path in folder.glob("*.db*"))
    return done.returncode, json.loads(done.stdout), written


def assert_synced(finished: tuple[int, list[dict[str, Any]], str]) -> None:
    """Check that both repositories were recorded."""
    status, rows, written = finished
    assert status == 0, written
    assert [(row["outcome"], row["tags"]) for row in rows] == [("ok", 1), ("ok", 1)]


BASIC_AUTH = f'kind = "basic"\nusername = "{USER}"\npassword = "env:SECRET"'


def test_user_and_password_are_accepted(guarded: DockerRegistry, tmp_path: Path) -> None:
    """With its password a registry is mirrored, and check accepts it."""
    endpoint = f'endpoint = "{guarded.url}"'
    assert_synced(tagsync(tmp_path, "sync", endpoint, BASIC_AUTH))
    status, (row,), written = tagsync(tmp_path, "check", endpoint, BASIC_AUTH)
    assert (status, row["accepted"], row["repositories"]) == (0, True, 2), written


@pytest.mark.parametrize(
    ("auth", "sentence"),
    [
        ('kind = "none"', 'kind = \\"basic\\"'),
        (BASIC_AUTH.replace(USER, "nobody"), "refused user 'nobody'"),
    ],
)
def test_wrong_credentials_are_reported(
    auth: str, sentence: str, guarded: DockerRegistry, tmp_path: Path
) -> None:
    """Without valid credentials nothing is mirrored, and the error has advice."""
    status, rows, written = tagsync(tmp_path, "sync", f'endpoint = "{guarded.url}"', auth)
    assert status == 1
    assert {row["outcome"] for row in rows} == {"failed"}
    assert sentence in written


def test_login_written_by_skopeo_is_used(guarded: DockerRegistry, tmp_path: Path) -> None:
    """A config.json written by a login is used, from Docker's folder or a path."""
    config = tmp_path / "docker" / "config.json"
    config.parent.mkdir()
    login = ("login", "--tls-verify=false", "--authfile", str(config))
    skopeo(*login, "--username", USER, "--password", PASSWORD, guarded.host)
    environment = {"DOCKER_CONFIG": str(config.parent)}
    endpoint = f'endpoint = "{guarded.url}"'
    assert_synced(tagsync(tmp_path, "sync", endpoint, 'kind = "docker"', environment))
    assert_synced(
        tagsync(tmp_path, "sync", endpoint, 'kind = "docker"\npath = "docker/config.json"')
    )


@pytest.mark.parametrize("key", ["credHelpers", "credsStore"])
def test_credential_helper_is_used(key: str, guarded: DockerRegistry, tmp_path: Path) -> None:
    """A credential helper named in Docker's configuration gives the login."""
    helper = tmp_path / "bin" / "docker-credential-made-up"
    helper.parent.mkdir()
    answer = json.dumps({"ServerURL": "x", "Username": USER, "Secret": PASSWORD})
    helper.write_text(
        f'#!/bin/sh\n[ "$1" = get ] && [ "$(cat)" = {guarded.host} ] && echo \'{answer}\'\n'
    )
    helper.chmod(0o755)
    named = {guarded.host: "made-up"} if key == "credHelpers" else "made-up"
    (tmp_path / "config.json").write_text(json.dumps({key: named}))
    environment = {"PATH": f"{helper.parent}:/usr/bin:/bin"}
    auth = 'kind = "docker"\npath = "config.json"'
    endpoint = f'endpoint = "{guarded.url}"'
    assert_synced(tagsync(tmp_path, "sync", endpoint, auth, environment))


def test_tokens_behind_a_private_ca(
    with_tokens: DockerRegistry, tokens: TokenServer, authority: Authority, tmp_path: Path
) -> None:
    """With ca_file, one token is fetched per repository over TLS."""
    tokens.asked.clear()
    registry = f'endpoint = "{with_tokens.url}"\nca_file = "{authority.ca}"'
    finished = tagsync(tmp_path, "sync", registry, BASIC_AUTH)
    assert_synced(finished)
    assert sorted(tokens.asked) == [
        (USER, "repository:team/a:pull"),
        (USER, "repository:team/b:pull"),
    ]
    assert "eyJ" not in finished[2]  # the beginning of every token


def test_wrong_password_is_sent_to_the_token_service_once(
    with_tokens: DockerRegistry, tokens: TokenServer, authority: Authority, tmp_path: Path
) -> None:
    """A token service that refuses a password is not asked again."""
    tokens.asked.clear()
    registry = f'endpoint = "{with_tokens.url}"\nca_file = "{authority.ca}"'
    wrong = BASIC_AUTH.replace(USER, "nobody")
    status, rows, written = tagsync(tmp_path, "sync", registry, wrong)
    assert status == 1
    assert {row["outcome"] for row in rows} == {"failed"}
    assert "gave no token" in written
    assert len(tokens.asked) == 1


def test_private_ca_without_ca_file_is_not_trusted(with_tokens: DockerRegistry) -> None:
    """Without ca_file the registry is not trusted, and the error names the key."""
    registry = opened_at(with_tokens.url)
    try:
        with pytest.raises(Untrusted, match="ca_file"):
            registry.list_tags("team/a")
    finally:
        registry.close()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "cannot be read"), ("", "no certificate"), ("nonsense", "no certificate")],
)
def test_invalid_ca_file_is_a_configuration_error(
    content: str | None, sentence: str, tmp_path: Path
) -> None:
    """A ca_file that is missing or has no certificate is a configuration error."""
    if content is not None:
        (tmp_path / "ca.pem").write_text(content)
    (tmp_path / "config.toml").write_text(
        '[[registries]]\nname = "r"\nkind = "oci"\nendpoint = "https://127.0.0.1:1"\n'
        'ca_file = "ca.pem"\n[[registries.watch]]\nrepositories = ["team/a"]\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "tagsync", "sync"], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 2
    assert sentence in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()

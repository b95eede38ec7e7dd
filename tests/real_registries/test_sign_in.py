"""Logins at the real registries that control access, and the command line."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tagsync.errors import Untrusted
from tests.support.docker_registry import require
from tests.support.real_registries import BASIC, BASIC_TOML, PASSWORD, USER, Access, Server, ways
from tests.support.skopeo import skopeo
from tests.support.token_service import TokenService

pytestmark = pytest.mark.processes

require("skopeo", "openssl")

guarded = ways(lambda way: way[1] is Access.BASIC)
"""Run a test with each registry that requires a user and a password."""

with_tokens = ways(lambda way: way[1] is Access.BEARER)
"""Run a test with each registry that has TLS and requires tokens."""


@pytest.fixture(scope="module")
def server(server: Server) -> Server:
    """The registry, with one tag in each of two repositories."""
    for name in ("a", "b"):
        server.registry.push(f"team/{name}", "v1", name)
    return server


def tagsync(
    folder: Path,
    command: str,
    server: Server,
    auth: str,
    environment: Mapping[str, str] | None = None,
    *,
    repositories: tuple[str, ...] = ("team/a", "team/b"),
) -> tuple[int, list[dict[str, Any]], str]:
    """Run a command on two repositories; return its status, rows and all its output."""
    table = server.toml("reg", auth=auth, more='retry_for = "1ms"')
    watch = f"[[registries.watch]]\nrepositories = {json.dumps(repositories)}\n"
    (folder / "config.toml").write_text(table + watch)
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


@guarded
def test_user_and_password_are_accepted(server: Server, tmp_path: Path) -> None:
    """With its password a registry is mirrored, and check accepts it."""
    assert_synced(tagsync(tmp_path, "sync", server, BASIC_TOML))
    status, (row,), written = tagsync(tmp_path, "check", server, BASIC_TOML)
    assert (status, row["accepted"], row["repositories"]) == (0, True, 2), written


@ways(lambda way: way[1] is not Access.OPEN)
def test_globs_are_expanded_with_the_login(server: Server, tmp_path: Path) -> None:
    """The login also serves for the catalogue, for which a token is fetched of its own."""
    assert_synced(tagsync(tmp_path, "sync", server, BASIC_TOML, repositories=("team/*",)))


@guarded
@pytest.mark.parametrize(
    ("auth", "sentence"),
    [
        ('kind = "none"', 'kind = \\"basic\\"'),
        (BASIC_TOML.replace(USER, "nobody"), "refused user 'nobody'"),
    ],
)
def test_wrong_credentials_are_reported(
    auth: str, sentence: str, server: Server, tmp_path: Path
) -> None:
    """Without valid credentials nothing is mirrored, and the error has advice."""
    status, rows, written = tagsync(tmp_path, "sync", server, auth)
    assert status == 1
    assert {row["outcome"] for row in rows} == {"failed"}
    assert sentence in written


@guarded
def test_login_written_by_skopeo_is_used(server: Server, tmp_path: Path) -> None:
    """A config.json written by a login is used, from Docker's folder or a path."""
    config = tmp_path / "docker" / "config.json"
    config.parent.mkdir()
    login = ("login", "--tls-verify=false", "--authfile", str(config))
    skopeo(*login, "--username", USER, "--password", PASSWORD, server.registry.host)
    environment = {"DOCKER_CONFIG": str(config.parent)}
    assert_synced(tagsync(tmp_path, "sync", server, 'kind = "docker"', environment))
    assert_synced(tagsync(tmp_path, "sync", server, 'kind = "docker"\npath = "docker/config.json"'))


@guarded
@pytest.mark.parametrize("key", ["credHelpers", "credsStore"])
def test_credential_helper_is_used(key: str, server: Server, tmp_path: Path) -> None:
    """A credential helper named in Docker's configuration gives the login."""
    helper = tmp_path / "bin" / "docker-credential-made-up"
    helper.parent.mkdir()
    answer = json.dumps({"ServerURL": "x", "Username": USER, "Secret": PASSWORD})
    helper.write_text(
        f'#!/bin/sh\n[ "$1" = get ] && [ "$(cat)" = {server.registry.host} ] && echo \'{answer}\'\n'
    )
    helper.chmod(0o755)
    named = {server.registry.host: "made-up"} if key == "credHelpers" else "made-up"
    (tmp_path / "config.json").write_text(json.dumps({key: named}))
    environment = {"PATH": f"{helper.parent}:/usr/bin:/bin"}
    auth = 'kind = "docker"\npath = "config.json"'
    assert_synced(tagsync(tmp_path, "sync", server, auth, environment))


@with_tokens
def test_tokens_behind_a_private_ca(server: Server, tokens: TokenService, tmp_path: Path) -> None:
    """With ca_file, one token is fetched per repository over TLS."""
    tokens.requested.clear()
    finished = tagsync(tmp_path, "sync", server, BASIC_TOML)
    assert_synced(finished)
    assert sorted(tokens.requested) == [
        (USER, "repository:team/a:pull"),
        (USER, "repository:team/b:pull"),
    ]
    assert "eyJ" not in finished[2]  # the beginning of every token


@with_tokens
def test_wrong_password_is_sent_to_the_token_service_once(
    server: Server, tokens: TokenService, tmp_path: Path
) -> None:
    """A token service that refuses a password is not asked again."""
    tokens.requested.clear()
    wrong = BASIC_TOML.replace(USER, "nobody")
    status, rows, written = tagsync(tmp_path, "sync", server, wrong)
    assert status == 1
    assert {row["outcome"] for row in rows} == {"failed"}
    assert "gave no token" in written
    assert len(tokens.requested) == 1


@with_tokens
def test_private_ca_without_ca_file_is_not_trusted(server: Server) -> None:
    """Without ca_file the registry is not trusted, and the error names the key."""
    with (
        server._replace(ca_file=None).opened() as registry,
        pytest.raises(Untrusted, match="ca_file"),
    ):
        registry.list_tags("team/a")


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

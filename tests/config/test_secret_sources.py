"""Secrets, and the credentials that they are part of."""

import os
from pathlib import Path

import pytest

from tagsync.config import parse
from tagsync.config.secret_sources import (
    changed_credentials,
    read_hook_secret,
    read_secret,
    resolve_credential,
)
from tagsync.config.tables import HooksTable
from tagsync.config.values import SecretName
from tagsync.errors import ConfigError
from tagsync.registries.credentials import DockerCredential, NoCredential, TokenCredential
from tagsync.registries.oci.docker_login import find_docker_config
from tests.support.configurations import FOLDER, MINIMAL, OCI, SECRET, parsed, with_token


def test_secret_from_the_environment(tmp_path: Path) -> None:
    """``env:`` reads a variable, and removes the final line break."""
    secret = read_secret(SecretName("env:SWR_TOKEN"), {"SWR_TOKEN": f" {SECRET}\n"}, tmp_path)
    assert secret.reveal() == SECRET


def test_secret_from_a_file(tmp_path: Path) -> None:
    """``file:`` reads a file, relative to the configuration's folder."""
    (tmp_path / "token").write_text(f"{SECRET}\n")
    for name in ("file:token", f"file:{tmp_path / 'token'}"):
        assert read_secret(SecretName(name), {}, tmp_path).reveal() == SECRET


def test_secret_of_a_windows_editor(tmp_path: Path) -> None:
    """A byte order mark and the end of a line are removed from a secret."""
    (tmp_path / "token").write_bytes(b"\xef\xbb\xbf" + SECRET.encode() + b"\r\n")
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    for name in ("file:token", "credential:token"):
        assert read_secret(SecretName(name), env, tmp_path).reveal() == SECRET


def test_secret_from_systemd(tmp_path: Path) -> None:
    """``credential:`` reads a file in systemd's folder for credentials."""
    (tmp_path / "swr").write_text(SECRET)
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert read_secret(SecretName("credential:swr"), env, Path("/nowhere")).reveal() == SECRET


def test_secret_for_push_hints_is_long(tmp_path: Path) -> None:
    """A secret that could be guessed is refused; without an address, none is read."""
    path = tmp_path / "hooks"
    table = HooksTable(listen=":9181", secret=SecretName("file:hooks"))
    path.write_text("x" * 16)
    secret = read_hook_secret(table, {}, tmp_path)
    assert secret is not None
    assert secret.reveal() == "x" * 16
    path.write_text("made-up-secret!")
    with pytest.raises(ConfigError, match="fewer than 16 characters") as raised:
        read_hook_secret(table, {}, tmp_path)
    assert "made-up" not in str(raised.value)
    assert read_hook_secret(HooksTable(secret=table.secret), {}, tmp_path) is None


def test_changed_credential_is_found(tmp_path: Path) -> None:
    """A credential's file that was written or moved after its copy is found, and no other."""
    tables = parsed(with_token('"credential:swr"')).secret_tables
    copies = tmp_path / "copies"
    copies.mkdir()
    source, copy = tmp_path / "swr", copies / "swr"
    env = {"CREDENTIALS_DIRECTORY": str(copies)}
    assert changed_credentials(tables, env, tmp_path) == []
    source.write_text("old")
    assert changed_credentials(tables, env, tmp_path) == []
    copy.write_text("old")
    os.utime(copy, ns=(1, source.stat().st_ctime_ns))
    assert changed_credentials(tables, env, tmp_path) == []
    os.utime(copy, ns=(1, source.stat().st_ctime_ns - 1))
    assert changed_credentials(tables, env, tmp_path) == [source]
    # As a file that was moved there: its content is older.
    os.utime(source, ns=(1, 1))
    assert changed_credentials(tables, env, tmp_path) == [source]
    other = parsed(with_token('"file:swr"')).secret_tables
    assert changed_credentials(other, env, tmp_path) == []
    notify = '[[notify]]\nname = "ops"\nkind = "webhook"\nurl = "credential:swr"\n'
    assert changed_credentials(parsed(notify).secret_tables, env, tmp_path) == [source]
    hooks = '[hooks]\nlisten = ":9181"\nsecret = "credential:swr"\n'
    assert changed_credentials(parsed(hooks).secret_tables, env, tmp_path) == [source]


def test_credential_contains_the_secret(tmp_path: Path) -> None:
    """A registry's credential contains the value of its secret."""
    table = parsed(with_token('"env:SWR_TOKEN"')).registries["swr"]
    asked_with = resolve_credential(table, {"SWR_TOKEN": SECRET}, tmp_path)
    assert isinstance(asked_with, TokenCredential)
    assert asked_with.token.reveal() == SECRET
    assert resolve_credential(parsed(MINIMAL).registries["swr"], {}, tmp_path) == NoCredential()


def test_secret_is_not_shown(tmp_path: Path) -> None:
    """No text of a secret, or of an object that contains it, shows its value."""
    secret = read_secret(SecretName("env:T"), {"T": SECRET}, tmp_path)
    held = TokenCredential(secret)
    texts = [repr(secret), str(secret), f"{secret}", f"{secret!r}", repr(held), str([held])]
    assert all(SECRET not in text for text in texts)


@pytest.mark.parametrize("env", [{}, {"SWR_TOKEN": ""}, {"SWR_TOKEN": " \n"}])
def test_missing_variable_is_named(env: dict[str, str], tmp_path: Path) -> None:
    """The error for a variable that is missing or empty has its name."""
    with pytest.raises(ConfigError, match="secret env:SWR_TOKEN is missing or empty"):
        read_secret(SecretName("env:SWR_TOKEN"), env, tmp_path)


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    """The error for a file without a secret has its name and the reason."""
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name, reason in {
        "missing": "No such file",
        "empty": "empty",
        "folder": "Is a directory",
        "binary": "not UTF-8",
    }.items():
        with pytest.raises(ConfigError, match=f"secret file:{name} .*{reason}"):
            read_secret(SecretName(f"file:{name}"), {}, tmp_path)


def test_permission_denied_is_the_reason(tmp_path: Path) -> None:
    """The error for a file without permission says so."""
    path = tmp_path / "token"
    path.write_text(SECRET)
    path.chmod(0)
    try:
        path.read_text()
    except PermissionError:
        pass
    else:
        pytest.skip("this user may read everything")
    with pytest.raises(ConfigError, match="secret file:token cannot be read: Permission denied"):
        read_secret(SecretName("file:token"), {}, tmp_path)


def test_credential_needs_systemd(tmp_path: Path) -> None:
    """Outside systemd, the error says how to get the folder or do without it."""
    with pytest.raises(ConfigError, match=r"CREDENTIALS_DIRECTORY is not set.*LoadCredential"):
        read_secret(SecretName("credential:swr"), {}, tmp_path)


def test_missing_credential_is_named(tmp_path: Path) -> None:
    """A credential that systemd's folder does not have is an error."""
    with pytest.raises(ConfigError, match=r"credential:swr cannot be read: No such file"):
        read_secret(SecretName("credential:swr"), {"CREDENTIALS_DIRECTORY": str(tmp_path)}, FOLDER)


@pytest.mark.parametrize(
    ("auth", "env", "path"),
    [
        ("path = 'x/config.json'", {}, "{folder}/x/config.json"),
        ("path = '/etc/x.json'", {}, "/etc/x.json"),
        ("", {"DOCKER_CONFIG": "/etc/docker"}, "/etc/docker/config.json"),
        ("", {}, "{home}/.docker/config.json"),
        ("path = '~/x.json'", {"DOCKER_CONFIG": "/etc/docker"}, "{home}/x.json"),
    ],
)
def test_path_of_dockers_configuration(
    auth: str, env: dict[str, str], path: str, tmp_path: Path
) -> None:
    """Docker's configuration is at the given path, or where Docker looks for it."""
    text = f"{OCI}[registries.auth]\nkind = 'docker'\n{auth}\n"
    table = parse(text, env, tmp_path).registries["r"]
    expected = path.replace("{folder}", str(tmp_path)).replace("{home}", str(Path.home()))
    credential = resolve_credential(table, env, tmp_path)
    assert isinstance(credential, DockerCredential)
    assert (credential.path or find_docker_config(env)) == Path(expected)

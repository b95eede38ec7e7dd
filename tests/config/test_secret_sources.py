"""Secrets, and the credentials that they are part of."""

from pathlib import Path

import pytest

from tagsync.config import parse
from tagsync.config.secret_sources import read_secret, resolve_credential
from tagsync.config.values import SecretName
from tagsync.errors import ConfigError
from tagsync.registries.credentials import DockerCredential, NoCredential, TokenCredential
from tagsync.registries.oci.docker_login import find_docker_config
from tests.support.configurations import FOLDER, MINIMAL, OCI, SECRET, parsed, with_token


def test_a_secret_of_the_environment(tmp_path: Path) -> None:
    """``env:`` reads a variable, and drops the line break that a shell leaves."""
    secret = read_secret(SecretName("env:SWR_TOKEN"), {"SWR_TOKEN": f" {SECRET}\n"}, tmp_path)
    assert secret.reveal() == SECRET


def test_a_secret_of_a_file(tmp_path: Path) -> None:
    """``file:`` reads a file, relative to the configuration's folder unless absolute."""
    (tmp_path / "token").write_text(f"{SECRET}\n")
    for name in ("file:token", f"file:{tmp_path / 'token'}"):
        assert read_secret(SecretName(name), {}, tmp_path).reveal() == SECRET


def test_a_secret_of_systemd(tmp_path: Path) -> None:
    """``credential:`` reads a file of systemd's folder for credentials."""
    (tmp_path / "swr").write_text(SECRET)
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert read_secret(SecretName("credential:swr"), env, Path("/nowhere")).reveal() == SECRET


def test_the_secret_is_in_the_credential(tmp_path: Path) -> None:
    """A registry's credential carries the secret's value, or is none at all."""
    table = parsed(with_token('"env:SWR_TOKEN"')).registries["swr"]
    asked_with = resolve_credential(table, {"SWR_TOKEN": SECRET}, tmp_path)
    assert isinstance(asked_with, TokenCredential)
    assert asked_with.token.reveal() == SECRET
    assert resolve_credential(parsed(MINIMAL).registries["swr"], {}, tmp_path) == NoCredential()


def test_a_secret_shows_nothing(tmp_path: Path) -> None:
    """Neither a secret nor what holds it shows the value in any of its texts."""
    secret = read_secret(SecretName("env:T"), {"T": SECRET}, tmp_path)
    held = TokenCredential(secret)
    texts = [repr(secret), str(secret), f"{secret}", f"{secret!r}", repr(held), str([held])]
    assert all(SECRET not in text for text in texts)


@pytest.mark.parametrize("env", [{}, {"SWR_TOKEN": ""}, {"SWR_TOKEN": " \n"}])
def test_a_missing_variable_is_refused(env: dict[str, str], tmp_path: Path) -> None:
    """A variable that is not set, or holds nothing, is refused by name."""
    with pytest.raises(ConfigError, match="secret env:SWR_TOKEN is missing or empty"):
        read_secret(SecretName("env:SWR_TOKEN"), env, tmp_path)


def test_a_file_that_gives_no_secret_is_refused(tmp_path: Path) -> None:
    """A file that is missing, empty, a folder or not UTF-8 is refused with its name and why."""
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


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    """A file that this user may not read is refused with the reason."""
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


def test_a_credential_outside_systemd_is_refused(tmp_path: Path) -> None:
    """Without systemd's folder, the sentence says how to get one or do without."""
    with pytest.raises(ConfigError, match=r"CREDENTIALS_DIRECTORY is not set.*LoadCredential"):
        read_secret(SecretName("credential:swr"), {}, tmp_path)


def test_a_credential_that_was_not_given_is_refused(tmp_path: Path) -> None:
    """A name that systemd's folder does not have is refused."""
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
def test_where_dockers_configuration_is(
    auth: str, env: dict[str, str], path: str, tmp_path: Path
) -> None:
    """Docker's own configuration is found where Docker finds it, or where path says."""
    text = f"{OCI}[registries.auth]\nkind = 'docker'\n{auth}\n"
    table = parse(text, env, tmp_path).registries["r"]
    expected = path.replace("{folder}", str(tmp_path)).replace("{home}", str(Path.home()))
    credential = resolve_credential(table, env, tmp_path)
    assert isinstance(credential, DockerCredential)
    assert (credential.path or find_docker_config(env)) == Path(expected)

"""``tagsync init``: a first configuration, and the files that tagsync ships."""

import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from tagsync import cli
from tagsync.cli.exit_status import FAILED, REFUSED
from tagsync.cli.init import _create_files
from tagsync.config import load
from tagsync.config.tables import CredentialTable
from tagsync.config.values import SecretName
from tagsync.emulator import Emulator
from tagsync.errors import ConfigError
from tagsync.registries.credentials import (
    AgencyCredential,
    BasicCredential,
    DockerCredential,
    KeyCredential,
    NoCredential,
    PasswordCredential,
    TokenCredential,
)
from tests.support.commands import tagsync
from tests.support.documents import fenced_blocks, section
from tests.support.paths import ROOT

NAMES = {"config.example.toml", *(path.name for path in (ROOT / "systemd").iterdir())}
SECRET = "hunter2-not-to-be-seen"
OCI = ("--kind", "oci", "--endpoint", "http://127.0.0.1:9")
SWR = ("--kind", "swr", "--endpoint", "http://127.0.0.1:9")
BASIC = (*OCI, "--auth", "basic", "--username", "me")


def init(*arguments: str | Path) -> Result:
    """Run the command in this process, up to the check, which sets up a logger."""
    words = ["init", *map(str, arguments)]
    return CliRunner().invoke(cli.tagsync, words, standalone_mode=False)


def refusal(*arguments: str | Path) -> str:
    """Return the sentence for arguments that are refused."""
    error = init(*arguments).exception
    assert isinstance(error, click.UsageError | ConfigError), error
    return error.format_message() if isinstance(error, click.UsageError) else str(error)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("arguments", "name", "auth"),
    [
        (OCI, "127.0.0.1", NoCredential()),
        ((*OCI, "--name", "hub"), "hub", NoCredential()),
        ((*OCI, "--auth", "docker"), "127.0.0.1", DockerCredential()),
        (
            (*OCI, "--auth", "docker", "--docker-config", "/etc/docker/config.json"),
            "127.0.0.1",
            DockerCredential(Path("/etc/docker/config.json")),
        ),
        (
            (*BASIC, "--password", "file:/run/password"),
            "127.0.0.1",
            BasicCredential("me", SecretName("file:/run/password")),
        ),
        (
            (*OCI, "--auth", "token", "--token", "credential:a token"),
            "127.0.0.1",
            TokenCredential(SecretName("credential:a token")),
        ),
        (
            SWR,
            "swr",
            KeyCredential(SecretName("env:SWR_ACCESS_KEY"), SecretName("env:SWR_SECRET_KEY")),
        ),
        (
            (*SWR, "--access-key", "env:AK", "--secret-key", "file:sk"),
            "swr",
            KeyCredential(SecretName("env:AK"), SecretName("file:sk")),
        ),
        (
            (*SWR, "--security-token", "env:ST", "--project-id", "0123"),
            "swr",
            KeyCredential(
                SecretName("env:SWR_ACCESS_KEY"),
                SecretName("env:SWR_SECRET_KEY"),
                SecretName("env:ST"),
                "0123",
            ),
        ),
        ((*SWR, "--auth", "ecs"), "swr", AgencyCredential()),
        (
            (*SWR, "--auth", "ecs", "--metadata-endpoint", "http://127.0.0.1:9"),
            "swr",
            AgencyCredential("http://127.0.0.1:9"),
        ),
        (
            (
                *(*SWR, "--auth", "password", "--iam-endpoint", "https://iam.example.com"),
                *("--username", "me", "--password", "env:P", "--domain", "OTC", "--project", "eu"),
            ),
            "swr",
            PasswordCredential("https://iam.example.com", "me", SecretName("env:P"), "OTC", "eu"),
        ),
    ],
)
def test_each_credential_can_be_configured(
    arguments: tuple[str, ...], name: str, auth: CredentialTable, tmp_path: Path
) -> None:
    """The new configuration is valid, and has what the options say."""
    path = tmp_path / "new.toml"
    finished = tagsync("init", *arguments, "team/api", "glob/*", "-o", path, cwd=tmp_path)
    assert path.exists(), finished.stderr
    config = load(path, {})
    assert list(config.registries) == [name]
    assert config.registries[name].auth == auth
    assert config.registries[name].kind == arguments[1]
    assert config.watches[0].repositories == ("team/api", "glob/*")
    assert config.database == tmp_path / "tagsync.db"


@pytest.mark.processes
@pytest.mark.parametrize(
    ("auth", "repository", "status"),
    [
        (("--auth", "none"), "team/api", 0),
        (("--auth", "none"), "team/gone", FAILED),
        (("--token", "env:TAGSYNC_TEST_MISSING", "--auth", "token"), "team/api", REFUSED),
    ],
)
def test_the_configuration_is_checked(
    auth: tuple[str, ...], repository: str, status: int, swr: Emulator, tmp_path: Path
) -> None:
    """The command shows the result of ``check`` for the new file, and ends with its status."""
    swr.push("team/api", "v1", "one")
    path = tmp_path / "new.toml"
    arguments = ("init", "--kind", "swr", "--endpoint", swr.url, repository, *auth)
    finished = tagsync(*arguments, "-o", path.name, cwd=tmp_path)
    assert (finished.returncode, finished.stderr) == (status, "")
    assert "wrote new.toml" in finished.stdout
    assert "configuration new.toml" in finished.stdout
    assert ("repository swr/team/api" in finished.stdout) == (status == 0)
    assert (tmp_path / "tagsync.db").exists() is False


@pytest.mark.processes
def test_the_default_place_is_that_of_the_other_commands(tmp_path: Path) -> None:
    """Without -o, the file is the one of --config, or ./config.toml."""
    tagsync("init", *OCI, "team/api", cwd=tmp_path)
    tagsync("--config", "other.toml", "init", *OCI, "team/api", cwd=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.toml", "other.toml"}


def test_no_existing_file_is_changed(tmp_path: Path) -> None:
    """A file, or a link to nothing, keeps its place, and no other file is written either."""
    path = tmp_path / "config.toml"
    path.write_text("mine")
    link = tmp_path / "link.toml"
    link.symlink_to(tmp_path / "nowhere")
    for existing in (path, link):
        assert "exists already" in refusal(*OCI, "team/api", "-o", existing)
    for name in NAMES:
        folder = tmp_path / f"with {name}"
        folder.mkdir()
        (folder / name).write_text("mine")
        assert "exists already" in refusal("--files", folder)
        assert [file.read_text() for file in folder.iterdir()] == ["mine"]
    assert path.read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


def test_a_file_that_appears_meanwhile_is_not_changed(tmp_path: Path) -> None:
    """The check and the creation are one step for the system."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    paths = [tmp_path / "folder" / "new", tmp_path / "link" / "new"]
    with pytest.raises(ConfigError, match="exists already"):
        _create_files(dict(zip(paths, ("first", "second"), strict=True)))
    assert paths[0].read_text() == "first"


def test_a_secret_itself_is_refused(tmp_path: Path) -> None:
    """A secret on the command line is not written, and no error repeats it."""
    options = ((BASIC, "--password"), (SWR, "--access-key"), (SWR, "--secret-key"))
    for registry, option in (*options, (SWR, "--security-token"), (OCI, "--token")):
        sentence = refusal(*registry, "team/api", option, SECRET, "-o", tmp_path / "c.toml")
        assert f"'{option}': a secret must not be written into the configuration" in sentence
        assert SECRET not in sentence
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (OCI, "give --kind, --endpoint and at least one REPOSITORY"),
        ((*OCI[:2], "team/api"), "give --kind, --endpoint and at least one REPOSITORY"),
        ((*BASIC, "team/api"), "--auth basic also needs --password"),
        ((*OCI, "--token", "env:T", "team/api"), "--token does not belong to --auth none"),
        ((*OCI, "--project-id", "0", "team/api"), "--project-id does not belong to --auth none"),
        ((*OCI, "--docker-config", "c", "team/api"), "--docker-config does not belong to --auth"),
        ((*OCI, "--auth", "ecs", "team/api"), "does not accept auth of kind 'ecs'"),
        ((*OCI, "--name", "a/b", "team/api"), "invalid registry name 'a/b'"),
        ((*OCI, "--name", "a\nb = 1", "team/api"), "not valid TOML"),
        ((*OCI, "Team/api"), "invalid repository 'Team/api'"),
        ((*OCI[:3], "ghcr.io", "team/api"), "has no scheme: write https://ghcr.io"),
    ],
)
def test_a_wrong_command_line_writes_nothing(
    arguments: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    """Options that are missing or wrong are refused in one sentence; no file is created."""
    output = tmp_path / "config.toml"
    assert sentence in refusal(*arguments, "-o", output, "--files", tmp_path / "files")
    assert list(tmp_path.iterdir()) == []


def test_without_arguments_the_sentence_says_what_is_missing() -> None:
    """The command alone is refused like one that lacks some of its options."""
    assert refusal() == "give --kind, --endpoint and at least one REPOSITORY"


def test_files_alone_need_no_registry(tmp_path: Path) -> None:
    """--files alone writes the units and the example unchanged, and checks nothing."""
    folder = tmp_path / "new" / "folder"
    finished = init("--files", folder)
    assert (finished.exception, finished.return_value) == (None, 0)
    assert {path.name for path in folder.iterdir()} == NAMES
    for path in folder.iterdir():
        beside = ROOT / path.name
        source = beside if beside.exists() else ROOT / "systemd" / path.name
        assert path.read_bytes() == source.read_bytes()


def test_each_documented_command_is_valid(tmp_path: Path) -> None:
    """The commands in the documentation are valid: only the folder of the new file is missing."""
    (block,) = fenced_blocks(section("docs/configuration.md", "The first configuration"), "sh")
    commands = [shlex.split(line) for line in block.splitlines()]
    assert len(commands) == 4
    for program, command, *arguments in commands:
        assert (program, command) == ("tagsync", "init")
        error = init(*arguments, "-o", tmp_path / "gone" / "new.toml").exception
        assert isinstance(error, FileNotFoundError), error


def test_a_file_that_cannot_be_written_completely_is_removed(tmp_path: Path) -> None:
    """After a failed write there is no half of a configuration."""
    with pytest.raises(UnicodeEncodeError):
        _create_files({tmp_path / "new": "a text that UTF-8 does not have: \ud800"})
    assert list(tmp_path.iterdir()) == []

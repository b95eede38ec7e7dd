"""``tagsync config``: the effective configuration, without secrets."""

import json
import tomllib
from pathlib import Path

from click.testing import CliRunner

from tagsync import cli
from tests.support.configurations import SECRET, with_token


def config(path: Path, *arguments: str, **variables: str) -> str:
    """Run the command in this process, and return what it prints."""
    words = ["--config", str(path), "config", *arguments]
    runner = CliRunner(env=variables)
    finished = runner.invoke(cli.tagsync, words, standalone_mode=False, catch_exceptions=False)
    return finished.stdout


def test_secrets_are_shown_by_their_places(tmp_path: Path) -> None:
    """The place of a secret is shown, never its value, and it need not be there."""
    path = tmp_path / "config.toml"
    path.write_text(with_token('"env:TOKEN"'))
    printed = config(path, TOKEN=SECRET)
    assert tomllib.loads(printed)["registries"][0]["auth"] == {
        "kind": "token",
        "token": "env:TOKEN",
    }
    assert SECRET not in printed
    assert printed == config(path)
    assert printed.startswith(f'# The effective configuration of "{path}"\n')


def test_json_has_the_same_tables(tmp_path: Path) -> None:
    """--format json prints what the TOML contains."""
    path = tmp_path / "config.toml"
    path.write_text(with_token('"file:token"'))
    tables = json.loads(config(path, "--format", "json"))
    assert tables == tomllib.loads(config(path))
    assert tables["registries"][0]["auth"]["token"] == f"file:{tmp_path}/token"

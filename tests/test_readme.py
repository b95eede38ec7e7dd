"""The README's promises that no command of its own proves."""

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tagsync.config import Config, RegistryTable, load

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_configuration_shown_is_accepted(tmp_path: Path) -> None:
    """The configuration in the README is one that tagsync takes."""
    shown, *_ = blocks("toml")
    (tmp_path / "config.toml").write_text(shown)
    config = load(tmp_path / "config.toml", {})
    assert [watch.repositories for watch in config.watches] == [("team-a/*", "team-b/web/frontend")]


@pytest.mark.parametrize("auth", [each for each in blocks("toml") if "[[" not in each])
def test_each_credential_shown_is_accepted(tmp_path: Path, auth: str) -> None:
    """Each section on credentials shows one that tagsync takes as it stands."""
    registry = '[[registries]]\nname = "swr"\nendpoint = "https://swr-api.example.com"\n'
    (tmp_path / "config.toml").write_text(f"{registry}[registries.auth]\n{auth}")
    assert load(tmp_path / "config.toml", {}).registries["swr"].auth


@pytest.mark.parametrize("shown", [each for each in blocks("toml") if "[[" in each])
def test_each_registry_shown_is_accepted(tmp_path: Path, shown: str) -> None:
    """Each registry that is shown is a configuration as it stands; those of kind oci by name."""
    (tmp_path / "config.toml").write_text(shown)
    config = load(tmp_path / "config.toml", {})
    assert config.watches
    assert {table.kind for table in config.registries.values()} == {
        "swr" if "swr" in config.registries else "oci"
    }


def test_the_example_configuration_says_the_defaults(tmp_path: Path) -> None:
    """The example is accepted, and uncommenting what it shows changes nothing."""
    text = (ROOT / "config.example.toml").read_text()
    path = tmp_path / "config.toml"
    path.write_text(text)
    plain = load(path, {})
    uncommented = re.sub(r"^# (?!kind = )(?=\w+ = )", "", text, flags=re.MULTILINE)
    path.write_text(uncommented)
    explicit = load(path, {})
    assert explicit.watches == plain.watches
    assert [_without_watches(config) for config in (explicit, plain)] == [
        _without_watches(plain)
    ] * 2
    assert uncommented != text


def _without_watches(config: Config) -> list[RegistryTable]:
    return [msgspec.structs.replace(table, watch=[]) for table in config.registries.values()]


def test_the_commands_shown_after_the_demo_run(tmp_path: Path) -> None:
    """Each command that follows the demo works as it stands, and the output shown is real."""
    (shown,) = blocks("console")
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run(command: str) -> str:
        return subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            check=True,
            text=True,
            timeout=30,
        ).stdout

    run("tagsync demo")
    for example in re.split(r"^\$ ", shown, flags=re.MULTILINE)[1:]:
        # A command goes on for as long as its lines are indented; the rest is what it prints.
        match = re.fullmatch(r"(.*\n(?: +.*\n)*)((?:.*\n)*)", example)
        assert match
        output = run(match[1])
        assert output
        assert not match[2] or output == match[2]

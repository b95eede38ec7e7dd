"""The effective configuration, and the TOML that it is written as."""

import tomllib
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagsync.config import Config, parse
from tagsync.config.effective import effective_tables
from tagsync.config.tables import RegistryTable
from tagsync.config.toml import format_document, format_value
from tagsync.config.values import DurationOrZero, Size, format_duration, format_size
from tests.support.configurations import FOLDER, MINIMAL, OCI
from tests.support.paths import ROOT

ELSEWHERE = Path("/elsewhere")

EVERYTHING = """
[store]
path = "state/tags.db"
[schedule]
cron = "@hourly"
jitter = 0
discovery_interval = "90s"
[metrics]
listen = ":9180"
[hooks]
listen = ":9181"
secret = "file:hooks"
[[registries]]
name = "r"
kind = "oci"
endpoint = "https://registry.example.com/v2/"
ca_file = "ca.pem"
client_cert_file = "/etc/client.pem"
client_key_file = "key.pem"
requests_per_second = 0.5
timeout = "1m30s"
retry_for = 0
max_listing_size = 1000000
[registries.auth]
kind = "basic"
username = "file:me"
password = "file:secrets/password"
[[registries.watch]]
repositories = ["a/*", "b"]
exclude = ["a/\\u007f\\U0001f600\\"#*"]
tags = ["v*"]
manifests = true
[[registries.watch]]
repositories = ["c"]
interval = "7s"
allow_empty = true
[[registries.watch]]
repositories = ["d"]
cron = "CRON_TZ=Europe/Berlin */10 8-18 * * 1-5"
jitter = "20s"
[[registries]]
name = "d"
kind = "oci"
endpoint = "https://docker.example.com"
[registries.auth]
kind = "docker"
path = "docker/config.json"
"""
INTERVAL_OF_MILLISECONDS = """
[schedule]
interval = "5ms"
[[registries]]
name = "swr"
endpoint = "http://localhost"
[[registries.watch]]
repositories = ["a/b"]
"""


def written(config: Config) -> str:
    """Return the effective configuration as the command prints it."""
    return format_document(effective_tables(config))


def registries(config: Config) -> list[RegistryTable]:
    """Return the registries without their watches, which `Config.watches` has in full."""
    return [msgspec.structs.replace(table, watch=[]) for table in config.registries.values()]


@pytest.mark.parametrize(
    "text",
    [
        "",
        MINIMAL,
        OCI,
        INTERVAL_OF_MILLISECONDS,
        EVERYTHING.replace("ca.pem", "/ca.pem")
        .replace('"key', '"/key')
        .replace("file:s", "file:/s")
        .replace('"docker/', '"/docker/'),
        (ROOT / "config.example.toml").read_text(),
    ],
    ids=["empty", "minimal", "oci", "milliseconds", "everything", "example"],
)
def test_the_effective_configuration_means_the_same(text: str) -> None:
    """Read again, from another folder, it is the same configuration."""
    original = parse(text, {"STATE_DIRECTORY": "/var/lib/tagsync"}, FOLDER)
    again = parse(written(original), {}, ELSEWHERE)
    assert again.database == original.database
    assert again.watches == original.watches
    assert again.listen == original.listen
    assert again.hooks_listen == original.hooks_listen
    assert registries(again) == registries(original)
    assert written(again) == written(original)


def test_relative_paths_become_absolute() -> None:
    """Each path that starts at the file's folder names the same file from everywhere."""
    original = parse(EVERYTHING, {}, FOLDER)
    tables = effective_tables(original)
    first, second = tables["registries"]
    assert tables["store"]["path"] == "/srv/mirror/state/tags.db"
    assert first["ca_file"] == "/srv/mirror/ca.pem"
    assert first["client_cert_file"] == "/etc/client.pem"
    assert first["client_key_file"] == "/srv/mirror/key.pem"
    assert first["auth"]["password"] == "file:/srv/mirror/secrets/password"
    assert first["auth"]["username"] == "file:me"
    assert second["auth"]["path"] == "/srv/mirror/docker/config.json"
    assert written(parse(written(original), {}, ELSEWHERE)) == written(original)


def test_docker_path_in_the_home_folder_stays() -> None:
    """A path below ~ depends on the user, and so it is not resolved."""
    text = f'{OCI}[registries.auth]\nkind = "docker"\npath = "~/docker.json"\n'
    (registry,) = effective_tables(parse(text, {}, FOLDER))["registries"]
    assert registry["auth"] == {"kind": "docker", "path": "~/docker.json"}


def test_each_watch_has_its_own_schedule() -> None:
    """A watch shows the interval or the cron expression that applies to it, and its jitter."""
    tables = effective_tables(parse(EVERYTHING, {}, FOLDER))
    keys = ("interval", "cron", "jitter", "discovery_interval")
    schedules = [
        {key: watch[key] for key in keys if key in watch}
        for watch in tables["registries"][0]["watch"]
    ]
    berlin = "CRON_TZ=Europe/Berlin */10 8-18 * * 1-5"
    assert schedules == [
        {"cron": "0 * * * *", "jitter": "0s", "discovery_interval": "1m30s"},
        {"interval": "7s", "jitter": "0s", "discovery_interval": "1m30s"},
        {"cron": berlin, "jitter": "20s", "discovery_interval": "1m30s"},
    ]
    assert tables["metrics"] == {"listen": "127.0.0.1:9180"}
    assert tables["hooks"] == {"listen": "127.0.0.1:9181", "secret": f"file:{FOLDER / 'hooks'}"}
    assert tables["schedule"]["cron"] == "0 * * * *"
    assert "interval" not in tables["schedule"]


@given(st.text(st.characters(codec="utf-8")))
def test_each_text_can_be_written(text: str) -> None:
    """TOML reads each text as it was, and nothing in it can control a terminal."""
    line = format_value(text)
    assert tomllib.loads(f"key = {line}") == {"key": text}
    assert line.isprintable()


def test_a_value_that_toml_lacks_is_refused() -> None:
    """None is no value of TOML."""
    with pytest.raises(TypeError):
        format_value(None)


@given(st.integers(0, 366 * 86_400_000))
def test_each_duration_can_be_written(milliseconds: int) -> None:
    """A duration of whole milliseconds is read as it was; another one cannot be written."""
    duration = timedelta(milliseconds=milliseconds)
    assert DurationOrZero.parse(format_duration(duration)) == duration
    assert format_duration(duration + timedelta(microseconds=1)) is None


@given(st.integers(1, 2**53) | st.builds(lambda power: 1024**power, st.integers(0, 5)))
def test_each_size_can_be_written(size: int) -> None:
    """A size is read as it was."""
    assert Size.parse(format_size(size)) == size

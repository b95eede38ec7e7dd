"""``tagsync check``: its findings and its advice."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tagsync.emulator import Emulator, Keys

pytestmark = pytest.mark.processes

KEYS = {"MADEUPACCESSKEY": Keys("made-up-secret-key")}


def check(folder: Path, endpoint: str, watch: str, secret: str = "made-up-secret-key") -> Any:
    (folder / "config.toml").write_text(
        f"""
        [[registries]]
        name = "swr"
        endpoint = "{endpoint}"
        retry_for = "1ms"
        [registries.auth]
        kind = "aksk"
        access_key = "env:KEY"
        secret_key = "env:SECRET"
        [[registries.watch]]
        repositories = {watch}
        """
    )
    command = [sys.executable, "-m", "tagsync", "check", "--format", "json"]
    environment = {"KEY": "MADEUPACCESSKEY", "SECRET": secret}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, timeout=30, check=False
    )
    assert b"Traceback" not in done.stderr
    assert secret.encode() not in done.stdout + done.stderr
    (row,) = json.loads(done.stdout)
    assert done.returncode == (1 if row["detail"] else 0)
    return row


def test_a_working_configuration(tmp_path: Path) -> None:
    """The row of a working registry has its repositories and the cost of one listing."""
    with Emulator(keys=KEYS) as swr:
        for name in ("a", "b", "c"):
            swr.push(f"team/{name}", "v1", name)
        row = check(tmp_path, swr.url, '["team/*"]')
    assert (row["reachable"], row["accepted"], row["repositories"]) == (True, True, 3)
    assert (row["listed"], row["pages"]) == ("swr/team/a", 1)
    assert row["bytes"] > 500
    assert row["seconds"] >= 0
    assert list(tmp_path.iterdir()) == [tmp_path / "config.toml"]


@pytest.mark.parametrize("watch", ['["team/*"]', '["team/a"]'])
def test_wrong_credentials(tmp_path: Path, watch: str) -> None:
    """A refused credential differs from a registry that cannot be reached."""
    with Emulator(keys=KEYS) as swr:
        swr.push("team/a", "v1", "a")
        row = check(tmp_path, swr.url, watch, "made-up-other-key")
    assert (row["reachable"], row["accepted"]) == (True, False)
    assert "check the credentials" in row["detail"]


@pytest.mark.parametrize("watch", ['["team/*"]', '["team/a"]'])
def test_an_unreachable_registry(tmp_path: Path, watch: str) -> None:
    """An endpoint without a server is not reachable; the credential is unknown."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    row = check(tmp_path, f"http://127.0.0.1:{port}", watch)
    assert (row["reachable"], row["accepted"]) == (False, None)
    assert "could not be reached" in row["detail"]


def test_nothing_matches(tmp_path: Path) -> None:
    """A glob that matches no repository is reported."""
    with Emulator(keys=KEYS) as swr:
        swr.push("team/a", "v1", "a")
        row = check(tmp_path, swr.url, '["other/*"]')
    assert row["repositories"] == 0
    assert "no repository matches" in row["detail"]


def test_a_repository_that_does_not_exist(tmp_path: Path) -> None:
    """A wrong name is reported, and the credential counts as accepted."""
    with Emulator(keys=KEYS) as swr:
        swr.push("team/a", "v1", "a")
        row = check(tmp_path, swr.url, '["team/typo"]')
    assert (row["reachable"], row["accepted"]) == (True, True)
    assert "4040010" in row["detail"]

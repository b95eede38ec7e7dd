"""``tagsync check``: a line for each thing, and its advice."""

import json
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tagsync.database.store import Store
from tagsync.emulator import Emulator, Keys
from tagsync.emulator.oci import GitLab, GitLabApi, OciEmulator

pytestmark = pytest.mark.processes

KEYS = {"MADEUPACCESSKEY": Keys("made-up-secret-key")}


def make_foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (id)")


def make_damaged(path: Path) -> None:
    path.write_bytes(b"no database at all" * 100)


def make_future(path: Path) -> None:
    Store.open(path).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO repositories (registry, name, last_attempt_at, hash)"
            " VALUES ('swr', 'team/new', '2999-05-03T12:00:00.000Z', '')"
        )


def make_folder(path: Path) -> None:
    path.mkdir()


def check(
    folder: Path,
    endpoint: str,
    watch: str,
    secret: str | None = "made-up-secret-key",
    *,
    more: str = "",
    status: int = 0,
) -> dict[str, dict[str, str | None]]:
    """Run the command, and return its lines by subject."""
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
        {more}
        """
    )
    command = [sys.executable, "-m", "tagsync", "check", "--format", "json"]
    environment = {"KEY": "MADEUPACCESSKEY"} | ({"SECRET": secret} if secret else {})
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, timeout=30, check=False
    )
    assert b"Traceback" not in done.stderr
    assert secret is None or secret.encode() not in done.stdout + done.stderr
    assert done.returncode == status, done
    rows = json.loads(done.stdout)
    assert [set(row) for row in rows] == [{"subject", "result", "detail", "advice"}] * len(rows)
    results = [row["result"] for row in rows]
    assert results == sorted(results, key=["ok", "warning", "failed"].index)
    assert all((row["advice"] is None) == (row["result"] == "ok") for row in rows)
    return {row["subject"]: row for row in rows}


def results_of(lines: dict[str, dict[str, str | None]]) -> dict[str, str | None]:
    """Return the results of the lines that are about registries, by subject."""
    kinds = ("registry", "repository", "glob")
    return {name: line["result"] for name, line in lines.items() if name.startswith(kinds)}


def test_a_working_configuration(tmp_path: Path) -> None:
    """Everything that the configuration names has a line, and nothing is created."""
    with Emulator(keys=KEYS) as swr:
        for name in ("a", "b", "c"):
            swr.push(f"team/{name}", "v1", name)
        lines = check(tmp_path, swr.url, '["team/*", "team/a"]')
    assert {line["result"] for line in lines.values()} == {"ok"}
    assert list(lines) == [
        "configuration config.toml",
        f"database folder {tmp_path}",
        f"database permissions {tmp_path}/tagsync.db",
        "database schema",
        "clock",
        "registry swr",
        "repository swr/team/a",
        "glob swr/team/*",
    ]
    detail = lines["glob swr/team/*"]["detail"] or ""
    assert detail.startswith("3 match; swr/team/a: 1 tag, 1 request, ")
    assert list(tmp_path.iterdir()) == [tmp_path / "config.toml"]


def check_glob(folder: Path, endpoint: str) -> tuple[int, dict[str, Any]]:
    """Run `check` for a glob at an OCI registry: the exit status, and the lines by subject."""
    (folder / "config.toml").write_text(
        f"""
        [[registries]]
        name = "gl"
        kind = "oci"
        endpoint = "{endpoint}"
        [[registries.watch]]
        repositories = ["team/*"]
        """
    )
    command = [sys.executable, "-m", "tagsync", "check", "--format", "json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=30, check=False)
    return done.returncode, {line["subject"]: line for line in json.loads(done.stdout)}


def test_the_list_of_an_oci_registry(tmp_path: Path) -> None:
    """A line says which list is used, and how many requests an idle poll costs."""
    with OciEmulator(GitLab()) as gitlab:
        for number in range(20):
            gitlab.push("team/api", f"v{number}", f"image {number}")
        status, lines = check_glob(tmp_path, gitlab.url)
        assert status == 0
        assert lines["list of tags of gl"] == {
            "subject": "list of tags of gl",
            "result": "ok",
            "detail": "the list gitlab for gl/team/api: 4 requests for an idle poll of 20 tags",
            "advice": None,
        }
        assert gitlab.heads() == []


def test_a_glob_at_gitlab_without_a_token(tmp_path: Path) -> None:
    """The line of the glob says which token to set, before the answer of the closed catalogue."""
    with OciEmulator(GitLab(api=GitLabApi("team/api", public=["team"]))) as gitlab:
        _, lines = check_glob(tmp_path, gitlab.url)
        line = lines["glob gl/team/*"]
        assert line["result"] == "failed"
        token, catalogue = line["detail"].index("set list_token"), line["detail"].index("_catalog")
        assert token < catalogue


@pytest.mark.parametrize(
    ("place", "result", "status"),
    [("SECRET", "ok", 0), ("KEY", "failed", 2), ("MISSING", "failed", 2)],
)
def test_the_secret_for_push_hints(tmp_path: Path, place: str, result: str, status: int) -> None:
    """A secret that is missing or too short is reported, and is not shown."""
    hooks = f'[hooks]\nlisten = ":9181"\nsecret = "env:{place}"\n'
    with Emulator(keys=KEYS) as swr:
        swr.push("team/a", "v1", "a")
        lines = check(tmp_path, swr.url, '["team/a"]', more=hooks, status=status)
    assert lines["push hints at 127.0.0.1, port 9181"]["result"] == result


@pytest.mark.parametrize("name", ["team/*", "team/a"])
def test_wrong_credentials(tmp_path: Path, name: str) -> None:
    """A refused credential is reported for the registry and for what it names."""
    with Emulator(keys=KEYS) as swr:
        swr.push("team/a", "v1", "a")
        lines = check(tmp_path, swr.url, f'["{name}"]', "made-up-other-key", status=1)
    assert set(results_of(lines).values()) == {"failed"}
    assert lines["registry swr"]["advice"] == "check the credential under [registries.auth]"


@pytest.mark.parametrize("name", ["team/*", "team/a"])
def test_an_unreachable_registry(tmp_path: Path, name: str) -> None:
    """An endpoint without a server is not reachable."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    lines = check(tmp_path, f"http://127.0.0.1:{port}", f'["{name}"]', status=1)
    assert set(results_of(lines).values()) == {"failed"}
    assert "could not be reached" in (lines["registry swr"]["detail"] or "")
    assert lines["registry swr"]["advice"] == "check the endpoint, the network and the proxy"


def test_nothing_is_hidden_behind_a_failure(tmp_path: Path) -> None:
    """Each repository and each glob has its own result, whatever fails beside it."""
    watches = """
        [[registries.watch]]
        repositories = ["team/b*", "other/*", "team/c*"]
        exclude = ["team/c*"]
        [[registries.watch]]
        repositories = ["later/*"]
        allow_empty = true
        [[registries]]
        name = "broken"
        endpoint = "http://127.0.0.1:9"
        retry_for = 0
        [[registries.watch]]
        repositories = ["x/y"]
        [[registries]]
        name = "unused"
        endpoint = "https://h"
    """
    with Emulator(keys=KEYS) as swr:
        for name in ("a", "b", "c"):
            swr.push(f"team/{name}", "v1", name)
        repositories = '["team/typo", "team/a", "team/b"]'
        lines = check(tmp_path, swr.url, repositories, more=watches, status=1)
    assert results_of(lines) == {
        "registry swr": "ok",
        "repository swr/team/typo": "failed",
        "repository swr/team/a": "ok",
        "repository swr/team/b": "ok",
        "glob swr/team/b*": "warning",
        "glob swr/other/*": "failed",
        "glob swr/team/c*": "failed",
        "glob swr/later/*": "ok",
        "registry broken": "failed",
        "repository broken/x/y": "failed",
        "registry unused": "warning",
    }
    typo = lines["repository swr/team/typo"]
    assert "4040010" in (typo["detail"] or "")
    assert typo["advice"] == "check the name under [[registries.watch]]"


def test_missing_secret_does_not_hide_the_rest(tmp_path: Path) -> None:
    """A registry without its secret fails with status 2; the others are checked."""
    with Emulator() as swr:
        swr.push("team/a", "v1", "a")
        other = f"""
            [[registries]]
            name = "other"
            endpoint = "{swr.url}"
            [[registries.watch]]
            repositories = ["team/a"]
        """
        lines = check(tmp_path, "https://h", '["a/b"]', None, more=other, status=2)
    assert results_of(lines) == {
        "registry swr": "failed",
        "registry other": "ok",
        "repository other/team/a": "ok",
    }
    assert "env:SECRET is missing" in (lines["registry swr"]["detail"] or "")


@pytest.mark.parametrize(
    ("make", "subject", "detail"),
    [
        (make_foreign, "database schema", "is a database of another program"),
        (make_damaged, "database schema", "is not a SQLite database"),
        (make_future, "clock", "but the newest poll in the database began at 2999-"),
        (make_folder, "database permissions {folder}/tagsync.db", "it is not a file"),
    ],
)
def test_unusable_databases(
    make: Callable[[Path], None], subject: str, detail: str, tmp_path: Path
) -> None:
    """A database that tagsync cannot use has a failed line, beside those of the registry."""
    make(tmp_path / "tagsync.db")
    with Emulator(keys=KEYS) as swr:
        swr.push("team/a", "v1", "a")
        lines = check(tmp_path, swr.url, '["team/a"]', status=1)
    line = lines[subject.replace("{folder}", str(tmp_path))]
    assert line["result"] == "failed"
    assert detail in (line["detail"] or "")
    assert results_of(lines) == {"registry swr": "ok", "repository swr/team/a": "ok"}


def test_missing_folder_of_the_database(tmp_path: Path) -> None:
    """The folder of the database has to exist."""
    more = '[[registries]]\nname = "x"\nendpoint = "https://h"\n[store]\npath = "no/tagsync.db"\n'
    with Emulator(keys=KEYS) as swr:
        swr.push("team/a", "v1", "a")
        lines = check(tmp_path, swr.url, '["team/a"]', more=more, status=1)
    assert lines[f"database folder {tmp_path}/no"]["advice"] == f"create it: mkdir -p {tmp_path}/no"

"""The output of each command is of the type that its schema is made from."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree
from types import GenericAlias
from typing import Any

import msgspec
import pytest

from tagsync.emulator import Emulator
from tests.support.commands import configure, tagsync
from tests.support.contract import OUTPUTS
from tests.support.record import query

pytestmark = pytest.mark.processes

UNKNOWN = f"sha256:{'0' * 64}"
HUB = """
[[registries]]
name = "hub"
kind = "oci"
endpoint = "http://127.0.0.1:9"
retry_for = "1ms"
[[registries.watch]]
repositories = ["library/busybox", "library/al*"]
[[notify]]
name = "ops"
kind = "command"
argv = ["/bin/cat"]
"""
ARGUMENTS = {
    "tags --at": "tags --at {then}",
    "diff": "diff * --from {then}",
    "find": "find {digest} {unknown}",
    "find --summary": "find {digest} {unknown} --summary",
    "verify": "verify --head {unknown}",
    "backup": "backup new.db",
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with changes, failures, repositories without a poll, and one without a watch."""
    folder = tmp_path_factory.mktemp("recorded")
    with Emulator() as swr:
        for name in ("team/api", "team/web", "team/old"):
            for tag in ("v1", "v2"):
                swr.push(name, tag, f"{name} {tag}")
        configure(folder, swr.url, "team/api", "team/web", "team/old")
        assert tagsync("sync", cwd=folder).returncode == 0
        swr.push("team/api", "v1", "another")
        swr.set_fields("team/web", "v1", is_trusted=True)
        swr.delete("team/api", "v2")
        path = configure(folder, swr.url, "team/api", "team/web")
        text = path.read_text().replace("repositories", 'immutable = ["v*"]\nrepositories', 1)
        path.write_text(text + HUB)
        assert tagsync("sync", cwd=folder).returncode == 1
        swr.push("team/web", "v3", "team/web v3")
        swr.push("team/new", "v1", "new")
        path = configure(folder, swr.url, "team/api", "team/web", "team/new")
        path.write_text(path.read_text() + HUB)
        yield folder


def arguments(command: str, folder: Path) -> list[str]:
    """Return the command line that gives a command rows of many kinds."""
    ((then, digest),) = query(
        folder / "tagsync.db",
        "SELECT max(first_observed_at), (SELECT digest FROM images LIMIT 1) FROM repositories",
    )
    words = {"then": then, "digest": digest, "unknown": UNKNOWN.removeprefix("sha256:")}
    return [part.format(**words) for part in ARGUMENTS.get(command, command).split()]


def expected_keys(kind: type[msgspec.Struct]) -> list[str]:
    return list(kind.__struct_encode_fields__)


@pytest.mark.parametrize("command", OUTPUTS)
def test_output_is_of_its_type(command: str, recorded: Path, tmp_path: Path) -> None:
    """JSON and JSON lines decode strictly as the type, and all formats have its columns."""
    kind = OUTPUTS[command]
    for output_format in ("json", "jsonl", "csv"):
        folder = copytree(recorded, tmp_path / output_format)
        finished = tagsync(*arguments(command, folder), "--format", output_format, cwd=folder)
        assert finished.returncode in {0, 1}, finished
        text = finished.stdout
        if output_format == "csv":
            header, *lines = csv.reader(io.StringIO(text))
            assert header == expected_keys(kind)
            assert lines
            continue
        if output_format == "jsonl":
            text = f"[{','.join(text.splitlines())}]"
        assert msgspec.json.decode(text, type=GenericAlias(list, (kind,)), strict=True)
        rows: list[dict[str, Any]] = json.loads(text)
        assert all(list(row) == expected_keys(kind) for row in rows)


def test_null_stands_for_what_is_not_known(recorded: Path) -> None:
    """A repository never polled has no counts, and one that is not watched is not stale."""
    rows = json.loads(tagsync("status", "--format", "json", cwd=recorded).stdout)
    found = {row["repository"]: row for row in rows}
    assert (found["swr/team/new"]["tags"], found["swr/team/new"]["outcome"]) == (None, None)
    assert found["swr/team/old"]["stale"] is None
    assert found["swr/team/api"]["stale"] is False
    assert found["hub/library/busybox"]["outcome"] == "failed"
    assert list(found) == sorted(found)

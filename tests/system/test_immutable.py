"""Tags that must not move, from the poll that sees a move to the acceptance: real processes."""

import json
from pathlib import Path
from typing import Any

import pytest

from tagsync.emulator import Emulator
from tests.support.commands import configure, error_line, events_named, events_of, tagsync

pytestmark = pytest.mark.processes


def alarms(folder: Path, *options: str) -> list[dict[str, Any]]:
    """Return the rows of ``log --immutable``."""
    finished = tagsync("log", "--immutable", *options, "--format", "json", cwd=folder)
    rows: list[dict[str, Any]] = json.loads(finished.stdout)
    return rows


@pytest.fixture
def folder(swr: Emulator, tmp_path: Path) -> Path:
    """A folder with a record of a repository in which only ``v1.0.0`` is immutable."""
    path = configure(tmp_path, swr.url, "team/api")
    path.write_text(path.read_text() + 'immutable = ["v*.*.*"]\n')
    for tag in ("latest", "v1.0.0"):
        swr.push("team/api", tag, "first")
    assert tagsync("sync", cwd=tmp_path).returncode == 0
    return tmp_path


def test_a_move_is_an_alarm_until_it_is_accepted(swr: Emulator, folder: Path) -> None:
    """Each move is an alarm of its own; acceptances leave the history and its proof whole."""
    first = swr.push("team/api", "latest", "first")
    second = swr.push("team/api", "v1.0.0", "second")
    swr.push("team/api", "latest", "second")
    finished = tagsync("sync", cwd=folder)
    (line,) = events_named(events_of(finished), "tag.immutable_moved")
    (row,) = alarms(folder)
    assert (row["id"], row["tag"]) == (line["change_id"], "v1.0.0")
    assert (row["previous_digest"], row["new_digest"]) == (first, second)
    assert "v1.0.0" in tagsync("status", cwd=folder).stdout.partition("registry ")[0]

    before = tagsync("log", "--format", "json", cwd=folder).stdout
    accepted = tagsync("accept", row["id"], "--reason", "a rebuild", cwd=folder)
    assert (accepted.returncode, accepted.stderr) == (0, "")
    assert alarms(folder) == []
    assert tagsync("log", "--format", "json", cwd=folder).stdout == before
    assert tagsync("verify", cwd=folder).returncode == 0
    again = error_line(tagsync("accept", row["id"], "--reason", "mine", cwd=folder), 2)
    assert f"change {row['id']} was already accepted at 20" in again

    swr.push("team/api", "v1.0.0", "first")
    tagsync("sync", cwd=folder)
    (back,) = alarms(folder)
    assert (back["previous_digest"], back["new_digest"]) == (second, first)
    assert [each["reason"] for each in alarms(folder, "--accepted")] == ["a rebuild", None]


def test_a_tag_that_is_deleted_and_comes_back_is_two_alarms(swr: Emulator, folder: Path) -> None:
    """A deletion is an alarm, and so is the same tag with another digest afterwards."""
    swr.delete("team/api", "v1.0.0")
    tagsync("sync", cwd=folder)
    swr.push("team/api", "v1.0.0", "other")
    tagsync("sync", cwd=folder)
    deleted, added = alarms(folder)
    assert (deleted["kind"], deleted["violation"]) == ("deleted", "immutable_deleted")
    assert (added["kind"], added["violation"]) == ("added", "immutable_moved")
    assert added["previous_digest"] == deleted["old_digest"] != added["new_digest"]
    finished = tagsync("accept", deleted["id"], added["id"], "--reason", "x", cwd=folder)
    assert "2 changes accepted; none is open" in finished.stdout

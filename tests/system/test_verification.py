"""A real daemon verifies its record in a real process."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from tagsync.emulator import Emulator
from tests.support.commands import tagsync
from tests.support.processes import Process, configure, registry
from tests.support.record import query, without_triggers

pytestmark = pytest.mark.processes

SECONDS: Final = 300
"""How long a verification may take: it runs only when no other process wants the processor."""


def test_a_daemon_verifies_its_record(tmp_path: Path, run: Callable[..., Process]) -> None:
    """A verification is recorded with its heads; after an alteration the next one says so."""
    database = tmp_path / "tagsync.db"
    with Emulator() as swr:
        swr.push("team/api", "v1", "one")
        watched = registry("swr", swr.url, "team/api")
        configure(tmp_path, watched, interval="1m")
        assert tagsync("sync", cwd=tmp_path).returncode == 0
        configure(tmp_path, watched, interval="1m", more='verify = "1ms"')
        process = run()
        fine = process.await_event("verify.finished", within=SECONDS)
        assert (fine["level"], fine["result"], fine["change_id"]) == ("info", "ok", 1)
        assert process.stop() == 0
        heads = query(database, "SELECT head, observations_head FROM verifications")[0]
        assert heads == (fine["head"], fine["observations_head"])
        assert "verification" not in tagsync("status", cwd=tmp_path).stdout

        with closing(sqlite3.connect(database)) as db, db, without_triggers(db):
            db.execute("UPDATE changes SET tag = 'v9', hash = hex(zeroblob(32))")
        process = run()
        fault = process.await_event("verify.finished", within=SECONDS)
        assert (fault["level"], fault["result"]) == ("error", "fault")
        assert "chain: change 1 " in fault["detail"]
        assert f"heads: no change and no observation has the hash {fine['head']}" in fault["detail"]
        assert (fault["head"], fault["change_id"]) == (fine["head"], 1)
        heartbeats = (process.await_message("WATCHDOG=1") for _ in range(100))
        assert any("the last verification found a fault" in each for each in heartbeats)
        assert process.stop() == 0

    shown = tagsync("status", cwd=tmp_path)
    assert "found a fault: run tagsync verify" in shown.stdout.splitlines()[-1]
    rows = json.loads(tagsync("status", "--format", "json", cwd=tmp_path).stdout)
    assert [row["repository"] for row in rows] == ["swr/team/api"]
    before = query(database, "SELECT * FROM verifications")
    assert tagsync("verify", cwd=tmp_path).returncode == 1
    assert query(database, "SELECT * FROM verifications") == before

"""The torture test in a short form; ``python -m tests.torture`` is the long one."""

import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from secrets import randbelow
from typing import Any, cast

import httpx
import pytest

from tagsync.clock import utc_now
from tagsync.database.store import Store
from tagsync.emulator import Emulator, Fault
from tagsync.emulator.faults import RecordedLie
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tagsync.registries import Registry
from tests.support.documents import read_page
from tests.support.registries import REPOSITORY
from tests.torture.judge import Evidence, Log, judge
from tests.torture.run import torture
from tests.torture.truth import Journal, State, Version

TAGS = "/v2/manage/namespaces/team/repos/api/tags"
SECONDS = 7.0


@pytest.mark.torture
@pytest.mark.parametrize("seed", [1, 2, randbelow(10**6)], ids=["one", "two", "any"])
def test_history_stays_true_under_torture(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under faults, lies, concurrency and kills the history stays true."""
    outcome = torture(seed, SECONDS, tmp_path)
    with capsys.disabled():
        sys.stdout.write(f"\n{outcome}\n")
    assert not outcome.wrong, f"python -m tests.torture --seed {seed} --seconds {SECONDS:g}"
    assert outcome.figures["kills"] > 0
    assert outcome.figures["changes"] > 0
    assert sum(outcome.faults.values()) > 0


@pytest.mark.torture
def test_documented_command_works() -> None:
    """The documented command prints the figures of each seed, here for one second."""
    match = re.search(
        r"python (-m tests\.torture --seeds) 20 (--seconds) 30$",
        read_page("docs/CONTRIBUTING.md"),
        re.MULTILINE,
    )
    assert match
    command = [sys.executable, *f"{match[1]} 2 {match[2]} 1 --seed 5".split()]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 0, finished.stdout
    assert re.findall(r"^seed (\d+): \d+ operations, ", finished.stdout, re.MULTILINE) == ["5", "6"]
    assert finished.stdout.endswith("2 runs, 0 of them wrong\n")


# --- the judge ------------------------------------------------------------------------------------

KEY = "swr/team/api", "v1"


@pytest.fixture
def evidence(
    connect: Callable[..., Registry], store: Store, database: Path, logged: list[dict[str, Any]]
) -> Evidence:
    """A true history of three tags: one moves, one comes and goes."""
    journal = Journal(utc_now)
    with Emulator() as swr:
        job = Job(REPOSITORY, connect(swr.url), timedelta(minutes=5))

        def push(tag: str, content: str) -> None:
            operation = partial(swr.push, "team/api", tag, content)
            journal.during(lambda: State(operation(), is_trusted=False), (KEY[0], tag))

        def delete(tag: str) -> None:
            journal.during(lambda: swr.delete("team/api", tag), (KEY[0], tag))

        steps = (
            (partial(push, "v1", "one"), partial(push, "v2", "two")),
            (partial(push, "v1", "moved"), partial(push, "v3", "three")),
            (partial(delete, "v3"),),
        )
        for step in steps:
            for operation in step:
                operation()
            assert poll(job, store).outcome == "ok"
        rows = httpx.get(f"{swr.url}{TAGS}", trust_env=False).json()
    text = "".join(f"{json.dumps(event)}\n" for event in logged)
    logs = [Log("sync.log", text, killed=False)]
    return Evidence(database, journal, {KEY[0]: rows}, {"swr": []}, logs, ["made-up-secret"])


PASS = (
    '{"event": "pass.finished", "change_id": 0, "head": "CHANGES", "ended": 0,'
    ' "observations_head": "OBSERVATIONS"}\n'
)

Tampering = Callable[[Evidence], Evidence | None]


def with_log(change: Callable[[str], str]) -> Tampering:
    return lambda found: found._replace(
        logs=[log._replace(text=change(log.text)) for log in found.logs]
    )


def with_rows(change: Callable[[list[dict[str, Any]]], None]) -> Tampering:
    return lambda found: change(cast("list[dict[str, Any]]", found.answers[KEY[0]]))


def with_versions(tag: str, change: Callable[[list[Version]], None]) -> Tampering:
    return lambda found: change(found.journal.versions((KEY[0], tag)))


def with_database(*statements: str) -> Tampering:
    def tamper(found: Evidence) -> None:
        with closing(sqlite3.connect(found.database)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    return tamper


def move(versions: list[Version], place: int, **by: float) -> None:
    """Shift the beginning of a version."""
    old = versions[place]
    versions[place] = old._replace(
        earliest=old.earliest + timedelta(**by), latest=old.latest + timedelta(**by)
    )


def forget(versions: list[Version]) -> None:
    """Remove the last version."""
    del versions[-1]


def another_digest(versions: list[Version]) -> None:
    versions[-1] = versions[-1]._replace(state=State("sha256:other", is_trusted=False))


TAMPERINGS: dict[str, tuple[Tampering, str]] = {
    "a tag that the mirror lacks": (
        with_rows(lambda rows: rows.append({**rows[0], "Tag": "v4"})),
        "and the mirror",
    ),
    "a field that the mirror has otherwise": (
        with_rows(lambda rows: rows[0].update(path="elsewhere")),
        "differs from the mirror: {'path'",
    ),
    "a deletion of what was there throughout": (
        with_versions("v3", forget),
        "never became that",
    ),
    "a deletion before it happened": (
        with_versions("v3", lambda versions: move(versions, 2, minutes=1)),
        "never became that",
    ),
    "a move that was known before": (
        with_versions("v1", lambda versions: move(versions, 2, minutes=-1)),
        "was not what it is said to have been",
    ),
    "a digest that the tag never had": (
        with_versions("v1", another_digest),
        "never became that",
    ),
    "a change that was altered": (
        with_database(
            "DROP TRIGGER changes_are_never_updated",
            "UPDATE changes SET tag = 'v1', kind = 'updated' WHERE kind = 'deleted'",
        ),
        "not whole",
    ),
    "a change that no log tells of": (
        with_log(lambda text: text.replace('"event": "tag.added"', '"event": "other"')),
        "no log tells of",
    ),
    "a baseline that no log tells of": (
        with_log(lambda text: text.replace("repository.baselined", "other")),
        "no log tells of",
    ),
    "a log that tells otherwise": (
        with_log(lambda text: text.replace('"tag": "v3"', '"tag": "v4"')),
        "tells of",
    ),
    "a log that tells of what was not recorded": (
        with_log(lambda text: text.replace('"change_id": 5', '"change_id": 6')),
        "tells of",
    ),
    "a head of another history": (
        with_log(lambda text: text + PASS.replace("OBSERVATIONS", "0" * 64)),
        "another history",
    ),
    "a head of other observations": (
        with_log(lambda text: text + PASS.replace("CHANGES", "0" * 64)),
        "other observations",
    ),
    "a clock that is blamed": (
        with_log(lambda text: text.replace("sync.finished", "clock.behind")),
        "blames the clock",
    ),
    "a traceback": (with_log(lambda text: f"Traceback\n{text}"), "no event: Traceback"),
    "a line that was not finished": (with_log(lambda text: text + "{"), "within a line"),
    "a secret": (with_log(lambda text: text.replace("v3", "made-up-secret")), "holds a secret"),
    "a mirror that the history does not give": (
        with_database("UPDATE tags SET digest = 'sha256:x' WHERE tag = 'v1'"),
        "not whole",
    ),
    "a tag said to have been there longer": (
        with_database("UPDATE tags SET first_observed_at = '2000-01-01T00:00:00.000Z'"),
        "not the history's",
    ),
    "an image of other bytes": (
        with_database(
            "DROP TRIGGER images_are_only_filled_in",
            "UPDATE images SET manifest = '{}', verified = 0",
        ),
        "is another's",
    ),
    "an observation that ends before it begins": (
        with_database("UPDATE observations SET last_at = '2000-01-01T00:00:00.000Z'"),
        "ends before it begins",
    ),
}


def test_judge_accepts_a_true_history(evidence: Evidence) -> None:
    """The judge finds nothing wrong with a true history."""
    assert judge(evidence) == []


@pytest.mark.parametrize("name", TAMPERINGS)
def test_judge_notices_each_tampering(name: str, evidence: Evidence) -> None:
    """Each check of the judge finds what it is for."""
    tamper, complaint = TAMPERINGS[name]
    found = judge(tamper(evidence) or evidence)
    assert any(complaint in sentence for sentence in found), found


def test_tag_hidden_by_a_lie_may_be_added_late(evidence: Evidence) -> None:
    """A tag may be recorded late if a registry hid it meanwhile, and only then."""
    move(evidence.journal.versions((KEY[0], "v3")), 1, minutes=-1)
    assert len(judge(evidence)) == 1
    told = RecordedLie(utc_now(), "team/api", Fault.PARTIAL)
    with closing(sqlite3.connect(evidence.database)) as connection:
        ((seen,),) = connection.execute("SELECT observed_at FROM changes WHERE tag = 'v3' LIMIT 1")
    at = datetime.fromisoformat(seen)
    assert judge(evidence._replace(lies={"swr": [told._replace(at=at)]})) == []

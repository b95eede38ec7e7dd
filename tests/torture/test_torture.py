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
from tagsync.emulator import Emulator, Fault, Faults
from tagsync.emulator.faults import RecordedLie
from tagsync.models import Image, Repository, Tag
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tagsync.registries import Registry
from tests.support.clock import FakeClock
from tests.support.documents import read_page
from tests.support.record import record
from tests.support.registries import REPOSITORY, Scripted
from tests.torture.front import Front
from tests.torture.judge import Cut, Evidence, Log, judge
from tests.torture.oci import OciRegistry
from tests.torture.run import torture
from tests.torture.truth import Journal, Served, State, Version

TAGS = "/v2/manage/namespaces/team/repos/api/tags"
SECONDS = 10.0


@pytest.mark.torture
@pytest.mark.parametrize("seed", [1, 2, randbelow(10**6)], ids=["one", "two", "any"])
def test_history_stays_true_under_torture(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under faults, lies, concurrency and kills the history stays true."""
    outcome = torture(seed, SECONDS, tmp_path, longest=20 * SECONDS)
    with capsys.disabled():
        sys.stdout.write(f"\n{outcome}\n")
    assert not outcome.wrong, f"python -m tests.torture --seed {seed} --seconds {SECONDS:g}"
    assert outcome.figures["kills"] > 0
    assert outcome.figures["changes"] > 0
    assert outcome.figures["power cuts"] > 0
    assert outcome.faults["stale"] > 0
    assert outcome.faults["no_total"] > 0
    assert any(kind.startswith("front ") for kind in outcome.faults)


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
    finished = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
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


# --- the judge and power cuts ---------------------------------------------------------------------

UNDONE = {
    "event": "tag.added",
    "repository": KEY[0],
    "tag": "v3",
    "change_id": 6,
    "old_digest": None,
}


def cut(evidence: Evidence, change_id: int) -> Cut:
    """Return a power cut that a change survived as the newest one."""
    with closing(sqlite3.connect(evidence.database)) as connection:
        query = "SELECT id, hash FROM changes WHERE id = ?"
        return Cut(*connection.execute(query, (change_id,)).fetchone())


def with_undone(evidence: Evidence, **fields: Any) -> Evidence:
    """Add the log of a process that ended with a power cut, and logged a change it undid."""
    with closing(sqlite3.connect(evidence.database)) as connection:
        query = "SELECT new_digest, not_before, observed_at FROM changes WHERE id = 4"
        names = ("new_digest", "not_before", "observed_at")
        values = connection.execute(query).fetchone()
    event = {**UNDONE, **dict(zip(names, values, strict=True)), **fields}
    before = [Log("cut.log", f"{json.dumps(event)}\n", killed=True)]
    after = [log._replace(cuts=1) for log in evidence.logs]
    return evidence._replace(logs=before + after, cuts=[cut(evidence, 5)])


def test_power_cut_may_undo_what_was_logged(evidence: Evidence) -> None:
    """A change that was true and logged may be undone if no head covers it."""
    assert judge(with_undone(evidence)) == []


def test_without_a_power_cut_nothing_is_undone(evidence: Evidence) -> None:
    """A logged change that is not in the history is wrong if no power cut explains it."""
    found = judge(with_undone(evidence)._replace(cuts=[]))
    assert [sentence for sentence in found if "tells of" in sentence] == found
    assert len(found) == 1


def test_undone_change_must_have_been_true(evidence: Evidence) -> None:
    """Also a change that a power cut undid must have been true."""
    (found,) = judge(with_undone(evidence, new_digest="sha256:other"))
    assert "tells of" in found


def test_surviving_change_may_not_be_undone(evidence: Evidence) -> None:
    """A logged change is not excused if its id survived the power cut."""
    (found,) = judge(with_undone(evidence, change_id=5))
    assert "tells of" in found


def test_logged_head_is_never_undone(evidence: Evidence) -> None:
    """A head that was logged must be in the history, whatever the power cut undid."""
    undone = with_undone(evidence)
    line = PASS.replace('"change_id": 0', '"change_id": 6').replace("OBSERVATIONS", "0" * 64)
    text = undone.logs[0].text + line
    logs = [undone.logs[0]._replace(text=text), *undone.logs[1:]]
    (found,) = judge(undone._replace(logs=logs))
    assert "another history" in found


@pytest.mark.parametrize("ids", [(5, 4), (4, None)])
def test_what_survived_a_power_cut_stays(ids: tuple[int, ...], evidence: Evidence) -> None:
    """What survived a power cut is in the record, and no later one undoes it."""
    cuts = [cut(evidence, number) if number else Cut(5, "f" * 64) for number in ids]
    logs = [log._replace(cuts=2) for log in evidence.logs]
    (found,) = judge(evidence._replace(cuts=cuts, logs=logs))
    assert "survived a power cut" in found


# --- the judge and stale replicas -----------------------------------------------------------------


STALE = "oci/team/api", "v1"


def pushed_state(push: Callable[[], str]) -> State:
    """Push, and return the state that this gives the tag."""
    return State(push(), is_trusted=False)


@pytest.fixture
def stale(
    connect: Callable[..., Registry], store: Store, database: Path, logged: list[dict[str, Any]]
) -> Evidence:
    """A tag of an OCI registry that moves, seems to move back, and is itself again."""
    faults = Faults()
    oci = OciRegistry(faults, page=10, keeps_states=1)
    journal = Journal(utc_now)
    with Front(oci.respond) as front:
        repository = Repository("oci", "team/api")
        job = Job(repository, connect(front.url, kind="oci"), timedelta(minutes=5), manifests=True)
        for content in ("one", "two"):
            push = partial(oci.push, "team/api", "v1", content)
            journal.during(partial(pushed_state, push), STALE)
            assert poll(job, store).outcome == "ok"
        faults.next("stale")
        assert [poll(job, store).updated for _ in range(3)] == [1, 1, 0]
    rows = [{"Tag": tag.tag, "digest": tag.digest} for tag in store.tags(repository).values()]
    lies = [lie for lie in faults.lies if lie.rows is not None]
    tags = [
        {tag: State(digest, is_trusted=False) for tag, digest in (lie.rows or {}).items()}
        for lie in lies
    ]
    served = [Served(lie.at, each) for lie, each in zip(lies, tags, strict=True)]
    logs = [Log("sync.log", "".join(f"{json.dumps(event)}\n" for event in logged), killed=False)]
    return Evidence(
        database, journal, {STALE[0]: rows}, {"oci": []}, logs, [], served={STALE[0]: served}
    )


def test_served_state_may_be_recorded(stale: Evidence) -> None:
    """What a stale replica sent may be recorded, and the true version again."""
    assert judge(stale) == []


def test_state_that_was_not_served_may_not_be_recorded(stale: Evidence) -> None:
    """Without the answer of a replica, a tag may not go back to an old version."""
    found = judge(stale._replace(served={}))
    assert any("never became that" in sentence for sentence in found), found


def test_served_state_may_not_be_recorded_later(stale: Evidence) -> None:
    """An answer of a replica excuses nothing after it."""
    shifted = [each._replace(at=each.at - timedelta(minutes=1)) for each in stale.served[STALE[0]]]
    found = judge(stale._replace(served={STALE[0]: shifted}))
    assert any("never became that" in sentence for sentence in found), found


def test_only_the_served_state_may_be_recorded(stale: Evidence) -> None:
    """An answer of a replica excuses no other state than its own."""
    other = {"v1": State("sha256:other", is_trusted=False)}
    served = [each._replace(tags=other) for each in stale.served[STALE[0]]]
    found = judge(stale._replace(served={STALE[0]: served}))
    assert any("never became that" in sentence for sentence in found), found


def test_time_of_the_registry_may_not_go_back(
    store: Store, database: Path, clock: FakeClock, scripted: Scripted
) -> None:
    """If stale listings are held, no change may take a tag to an older time of the registry."""
    job = Job(REPOSITORY, scripted, timedelta(minutes=5))
    for number in (2, 1):
        tag = Tag("v1", f"sha256:{number}", updated=f"2026-01-0{number}T00:00:00Z")
        record(store, job, clock, {"v1": tag}, {str(tag.digest): Image(str(tag.digest))})
        clock.advance(seconds=1)
    evidence = Evidence(database, Journal(utc_now), {}, {"swr": []}, [], [])
    assert not any("stale listing" in sentence for sentence in judge(evidence))
    found = judge(evidence._replace(holds_stale=["swr"]))
    assert any("stale listing was recorded" in sentence for sentence in found), found


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

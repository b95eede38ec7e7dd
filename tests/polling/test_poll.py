"""One poll: its outcome, and what it records."""

import hashlib
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tagsync.clock import timestamp
from tagsync.database.outcomes import Failed
from tagsync.database.state import RepositoryState
from tagsync.database.store import Store
from tagsync.emulator import Emulator
from tagsync.errors import Busy, RepositoryNotFound, StoreError, Unreachable
from tagsync.manifests import digest_of
from tagsync.models import Image, Tag, Unchanged
from tagsync.polling.jobs import Job, Options
from tagsync.polling.poll import poll
from tagsync.registries import Registry
from tests.support.clock import FakeClock
from tests.support.polls import counts, event_names
from tests.support.record import assert_history_is_whole
from tests.support.registries import REPOSITORY, Scripted

Query = Callable[..., list[tuple[Any, ...]]]
Events = list[dict[str, Any]]


def test_large_repository_is_mirrored_exactly(
    connect: Callable[..., Registry], store: Store, database: Path, query: Query, logged: Events
) -> None:
    """A repository of 2,500 tags is mirrored, and each change is recorded once."""
    with Emulator() as swr:
        for number in range(2500):
            swr.push("team/api", f"v{number}", f"build {number}")
        job = Job(REPOSITORY, connect(swr.url), timedelta(minutes=5))
        assert counts(poll(job, store)) == ("ok", 2500, 0, 0)
        assert query("SELECT count(*) FROM tags") == [(2500,)]
        assert event_names(logged, "tag.") == []
        assert event_names(logged, "repository.") == ["repository.baselined"]

        before = query("SELECT count(*), max(id) FROM changes")
        assert counts(poll(job, store)) == ("ok", 0, 0, 0)
        assert query("SELECT count(*), max(id) FROM changes") == before

        swr.push("team/api", "new", "build new")
        swr.push("team/api", "v7", "build moved")
        swr.delete("team/api", "v9")
        swr.set_fields("team/api", "v11", is_trusted=True)
        assert counts(poll(job, store)) == ("ok", 1, 2, 1)
        assert counts(poll(job, store)) == ("ok", 0, 0, 0)
    recorded = query("SELECT tag, kind, old_digest = new_digest FROM changes WHERE id > 2500")
    assert sorted(recorded) == [
        ("new", "added", None),
        ("v11", "updated", 1),
        ("v7", "updated", 0),
        ("v9", "deleted", None),
    ]
    lines = [(e["event"], e["tag"], e.get("moved")) for e in logged if e["event"][:4] == "tag."]
    assert sorted(lines) == [
        ("tag.added", "new", None),
        ("tag.deleted", "v9", None),
        ("tag.updated", "v11", False),
        ("tag.updated", "v7", True),
    ]
    fields = query("SELECT fields FROM changes WHERE tag = 'v11' AND id > 2500")
    assert json.loads(fields[0][0]) == {"is_trusted": [False, True]}
    assert_history_is_whole(database)


def test_failed_poll_changes_only_the_observation(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """A failed poll adds an observation, but changes neither mirror nor history."""
    scripted.then("a", "b")
    poll(job, store, clock=clock)
    before = query("SELECT * FROM tags"), query("SELECT * FROM changes")
    clock.advance(minutes=5)
    scripted.script.append(Unreachable("the connection broke"))
    assert counts(poll(job, store, clock=clock)) == ("failed", 0, 0, 0)
    assert (query("SELECT * FROM tags"), query("SELECT * FROM changes")) == before
    assert query("SELECT failures, last_error FROM repositories") == [(1, "the connection broke")]
    assert query("SELECT outcome, detail, polls FROM observations ORDER BY id") == [
        ("ok", None, 1),
        ("failed", "the connection broke", 1),
    ]


def test_change_lies_between_two_listings(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """A change lies between the start of one listing and the end of the next."""
    scripted.then("a", started_at="2026-05-03T11:59:58.000Z")
    poll(job, store, clock=clock)
    clock.advance(minutes=5)
    scripted.then("a", "b", started_at="2026-05-03T12:04:59.000Z")
    poll(job, store, clock=clock)
    assert query("SELECT tag, not_before, observed_at FROM changes ORDER BY id") == [
        ("a", None, "2026-05-03T12:00:00.000Z"),
        ("b", "2026-05-03T11:59:58.000Z", "2026-05-03T12:05:00.000Z"),
    ]


def test_deletion_in_pages_needs_a_second_read(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """A tag that a paged listing lacks is deleted only if a second read lacks it too."""
    scripted.then("a", "b", "c")
    poll(job, store, clock=clock)
    scripted.then("a", pages=2)
    scripted.then("a", "b", "d", pages=2)
    assert counts(poll(job, store, clock=clock)) == ("ok", 1, 0, 1)
    assert query("SELECT tag, kind FROM changes WHERE id > 3 ORDER BY id") == [
        ("c", "deleted"),
        ("d", "added"),
    ]
    assert scripted.script == []


def test_tag_that_slipped_to_an_earlier_page_is_not_deleted(
    connect: Callable[..., Registry], store: Store, database: Path
) -> None:
    """Without a total, a row that slips to a page already read is not a deletion."""
    with Emulator(max_page=10, sends_total=False) as swr:
        for number in range(11):
            swr.push("team/api", f"v{number}")
        job = Job(REPOSITORY, connect(swr.url), timedelta(minutes=5))
        poll(job, store)
        swr.push("team/api", "v10", "moved")
        # After a deletion on the first page, the eleventh row would be the tenth.
        swr.answer_next(200, [], matching="offset=10&")
        assert counts(poll(job, store)) == ("ok", 0, 1, 0)
    assert_history_is_whole(database)


def test_image_of_an_outdated_read_is_not_recorded(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """An image that only an outdated read of a tag had is not recorded."""
    scripted.then("a", "b")
    poll(job, store, clock=clock)
    clock.advance(minutes=5)
    for digest in ("sha256:passing", "sha256:kept"):
        scripted.then(Tag("a", digest), pages=2)
        listing: Any = scripted.script.pop()
        images = {digest: Image(digest, manifest="{}", verified=True)}
        scripted.script.append(msgspec.structs.replace(listing, images=images))
    assert counts(poll(job, store, clock=clock)) == ("ok", 0, 1, 1)
    digests = {digest for (digest,) in query("SELECT digest FROM images")}
    assert digests == {"sha256:a", "sha256:b", "sha256:kept"}


def test_failed_second_read_deletes_nothing(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """If the second read fails, the poll fails and deletes nothing."""
    scripted.then("a", "b")
    poll(job, store, clock=clock)
    scripted.then("a", pages=2)
    scripted.script.append(Unreachable("gone again"))
    assert poll(job, store, clock=clock).outcome == "failed"
    assert query("SELECT count(*) FROM tags") == [(2,)]


def test_failures_that_were_not_recorded_end_as_well(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock
) -> None:
    """A listing recovers from failures that the database does not know, as on a full disk."""
    scripted.then("a")
    assert poll(msgspec.structs.replace(job, failures=3), store, clock=clock).recovered_from == 3
    scripted.then("a")
    assert poll(job, store, clock=clock).recovered_from == 0


def test_unchanged_listing_ends_an_outage(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """An unchanged listing after a failed poll is a recovery with the known tag count."""
    scripted.then("a", "b")
    poll(job, store, clock=clock)
    now = timestamp(clock.now)
    scripted.script += [Unreachable("for a moment"), Unchanged(now, now, "the fingerprint")]
    poll(job, store, clock=clock)
    result = poll(job, store, clock=clock)
    assert (result.outcome, result.tags, result.recovered_from) == ("ok", 2, 1)
    assert query("SELECT outcome, tags FROM observations ORDER BY id") == [
        ("ok", 2),
        ("failed", None),
        ("ok", 2),
    ]


def test_dry_run_records_nothing(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query, logged: Events
) -> None:
    """A dry run counts the changes, but writes nothing to the database or the log."""
    scripted.then("a", "b")
    poll(job, store, clock=clock)
    logged.clear()
    before = [query(f"SELECT * FROM {table}") for table in ("repositories", "observations")]
    clock.advance(minutes=1)
    scripted.then("a", "c", "d")
    assert counts(poll(job, store, Options(dry_run=True), clock)) == ("ok", 2, 0, 1)
    assert [query(f"SELECT * FROM {table}") for table in ("repositories", "observations")] == before
    assert query("SELECT count(*) FROM changes") == [(2,)]
    assert event_names(logged, "tag.") == []


def test_observations_grow_until_a_gap(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """Polls with the same outcome share an observation unless a gap separates them."""
    for minutes in (0, 5, 10, 10.1, 5):
        clock.advance(minutes=minutes)
        scripted.then("a")
        poll(job, store, clock=clock)
    assert query("SELECT first_at, last_at, polls, tags FROM observations ORDER BY id") == [
        ("2026-05-03T12:00:00.000Z", "2026-05-03T12:15:00.000Z", 3, 1),
        ("2026-05-03T12:25:06.000Z", "2026-05-03T12:30:06.000Z", 2, 1),
    ]


def test_failed_transaction_records_nothing(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """If the database rejects one row, nothing of the poll is recorded."""
    scripted.then("a")
    poll(job, store, clock=clock)
    before = query("SELECT * FROM repositories"), query("SELECT * FROM changes")
    clock.advance(minutes=5)
    scripted.then("a", Tag("b", "sha256:b", size=2**63))
    with pytest.raises(Exception, match="too large"):
        poll(job, store, clock=clock)
    assert (query("SELECT * FROM repositories"), query("SELECT * FROM changes")) == before


def test_unverified_manifests_are_recorded_and_logged(
    connect: Callable[..., Registry], store: Store, query: Query, logged: Events
) -> None:
    """A manifest that does not match its digest or image_id is recorded and logged.

    Only the digest decides whether it is verified, and a verified one decides the image_id.
    """
    with Emulator() as swr:
        good = swr.push("team/api", "good", "good")
        swr.push("team/api", "bytes", "bytes", manifest="{}")
        swr.push("team/api", "config", "config", image_id="0" * 64)
        result = poll(Job(REPOSITORY, connect(swr.url), timedelta(minutes=5)), store)
    assert counts(result) == ("ok", 3, 0, 0)
    verified: dict[str, int] = dict(query("SELECT tag, verified FROM current_tags"))
    assert verified == {"good": 1, "bytes": 0, "config": 1}
    (image_id,) = query(
        "SELECT i.image_id FROM images AS i JOIN tags USING (digest) WHERE tag = 'config'"
    )[0]
    assert image_id not in {None, "0" * 64}
    bad = {entry["tag"] for entry in logged if entry["event"] == "image.unverified"}
    assert bad == {"bytes", "config"}
    assert good in dict(query("SELECT digest, manifest FROM images"))
    assert "bytes and 1 more" in query("SELECT detail FROM observations")[0][0]


def test_closed_store_raises_store_error(
    job: Job, scripted: Scripted, database: Path, clock: FakeClock
) -> None:
    """A poll raises StoreError if its store is closed."""
    store = Store.open(database)
    store.close()
    scripted.then("a")
    with pytest.raises(StoreError, match="could not be used"):
        poll(job, store, clock=clock)


def test_empty_repository_has_a_baseline(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, logged: Events
) -> None:
    """The first listing of a repository is logged once, even if it is empty."""
    for _ in range(2):
        scripted.then()
        poll(job, store, clock=clock)
    baselines = [entry for entry in logged if entry["event"] == "repository.baselined"]
    assert [entry["tags"] for entry in baselines] == [0]


def test_outage_is_one_observation(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, query: Query
) -> None:
    """Failures that differ only in their error text share one observation."""
    for number in range(3):
        error = Busy(f"answered 500 (request {number})", status=500, code="SVCSTG.SWR.5000001")
        scripted.script.append(error)
        poll(job, store, clock=clock)
    assert query("SELECT detail, polls FROM observations") == [
        ("Busy: status 500, code SVCSTG.SWR.5000001", 3)
    ]
    assert query("SELECT failures, last_error FROM repositories") == [
        (3, "answered 500 (request 2)")
    ]


def test_observations_do_not_run_backwards(job: Job, store: Store, query: Query) -> None:
    """A poll that is recorded late sets no recorded time back."""
    for at in ("2026-05-03T12:00:10.000Z", "2026-05-03T12:00:09.000Z"):
        store.record(REPOSITORY, Failed(Unreachable("x"), at), RepositoryState(), job.interval)
    assert query("SELECT last_at FROM observations") == [("2026-05-03T12:00:10.000Z",)]
    assert query("SELECT last_attempt_at FROM repositories") == [("2026-05-03T12:00:10.000Z",)]


def test_gone_repository_is_not_listed_as_known(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock
) -> None:
    """A store no longer lists a repository that was recorded as gone."""
    scripted.then("a")
    scripted.script += [RepositoryNotFound("no such repository")] * 2
    for _ in range(3):
        assert store.repositories() in ([], [REPOSITORY])
        poll(job, store, clock=clock)
    assert store.repositories() == []


def test_altered_manifest_of_a_known_digest_is_logged(
    connect: Callable[..., Registry], store: Store, query: Query, logged: Events
) -> None:
    """A manifest that changes under a known digest is logged and noted."""
    with Emulator() as swr:
        swr.push("team/api", "v1", "good")
        job = Job(REPOSITORY, connect(swr.url), timedelta(minutes=5))
        poll(job, store)
        swr.push("team/api", "v2", "good", manifest='{"altered":true}')
        poll(job, store)
    assert [e["tag"] for e in logged if e["event"] == "image.unverified"] == ["v2"]
    assert query("SELECT verified FROM images") == [(1,)]
    details = [detail for (detail,) in query("SELECT detail FROM observations ORDER BY id")]
    sent = digest_of(b'{"altered":true}')
    assert details == [
        None,
        f"the manifest of v2 does not match its digest or image_id (the registry sent {sent})",
    ]


def test_bad_field_is_recorded_as_null_and_named(
    connect: Callable[..., Registry], store: Store, query: Query, logged: Events, database: Path
) -> None:
    """A field of another type costs neither its tag nor the listing, and is named."""
    with Emulator() as swr:
        swr.push("team/api", "v1", "first")
        swr.push("team/api", "v2", "first")
        swr.set_fields("team/api", "v2", size="123", is_trusted="no")
        job = Job(REPOSITORY, connect(swr.url), timedelta(minutes=5))
        assert counts(poll(job, store)) == ("ok", 2, 0, 0)
        assert counts(poll(job, store)) == ("ok", 0, 0, 0)
    assert query("SELECT tag, size IS NULL, is_trusted FROM tags ORDER BY tag") == [
        ("v1", 0, 0),
        ("v2", 1, None),
    ]
    ((reasons, detail),) = query("SELECT reasons, detail FROM observations")
    assert reasons == "bad_field"
    assert "size, is_trusted of v2 in another type than documented" in detail
    (line,) = [event for event in logged if event["event"] == "tag.bad_field"]
    assert (line["tag"], line["fields"]) == ("v2", ["size", "is_trusted"])
    assert_history_is_whole(database)


@pytest.mark.parametrize("bad", [None, "", "x", "sha256:0"])
def test_tag_without_a_digest_in_between_moves_once(
    bad: str | None, connect: Callable[..., Registry], store: Store, query: Query, database: Path
) -> None:
    """SWR lists a tag without a valid digest: nothing is recorded, and the next move is one."""
    digests = [f"sha256:{number:064x}" for number in range(2)]
    with Emulator() as swr:
        swr.create_repository("team/api")
        job = Job(REPOSITORY, connect(swr.url), timedelta(minutes=5))
        for digest in (digests[0], bad, digests[1]):
            rows = [{"Tag": "v1", "digest": digest}, {"Tag": "v2", "digest": digests[0]}]
            swr.answer_next(200, rows, {"Content-Range": "0-2/2"})
            assert poll(job, store).outcome == "ok"
    assert query("SELECT reasons FROM observations ORDER BY id") == [
        (None,),
        ("unresolved",),
        (None,),
    ]
    moves = query("SELECT tag, old_digest, new_digest, not_before FROM changes WHERE id > 2")
    ((first_at,),) = query("SELECT not_before FROM changes WHERE id > 2")
    assert moves == [("v1", *digests, first_at)]
    # The listing without a digest began later, and proves nothing about the tag.
    ((began,),) = query("SELECT first_at FROM observations WHERE reasons IS NOT NULL")
    assert first_at < began
    assert_history_is_whole(database)


def test_sha512_digest_is_recorded_and_verified(
    connect: Callable[..., Registry], store: Store, query: Query, database: Path
) -> None:
    """A manifest whose digest is by SHA-512 is recorded as verified, and stays so in `verify`."""
    text = '{"schemaVersion":2}'
    digest = "sha512:" + hashlib.sha512(text.encode()).hexdigest()
    with Emulator() as swr:
        swr.create_repository("team/api")
        rows = [{"Tag": "v1", "digest": digest, "manifest": text}]
        swr.answer_next(200, rows, {"Content-Range": "0-1/1"})
        assert (
            counts(poll(Job(REPOSITORY, connect(swr.url), timedelta(minutes=5)), store))[0] == "ok"
        )
    assert query("SELECT digest, verified FROM images") == [(digest, 1)]
    assert_history_is_whole(database)

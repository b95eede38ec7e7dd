"""Images whose right manifest arrives after their digest, or after a wrong manifest."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import stamina

from tagsync.audit.queries import Audit
from tagsync.database.past import Past
from tagsync.database.state import RepositoryState
from tagsync.database.store import Store
from tagsync.emulator import Emulator
from tagsync.manifests import digest_of, listed_image
from tagsync.models import Image, Repository, Tag
from tagsync.polling.decide import compare, decide, merge_reads
from tagsync.polling.doubts import Rules
from tagsync.polling.jobs import Job, Poll
from tagsync.polling.poll import poll
from tagsync.registries import Registry
from tests.support.clock import FakeClock
from tests.support.oci import REPOSITORY, Fake, image, index, registry_of
from tests.support.record import record, without_triggers
from tests.support.registries import Scripted

Query = Callable[..., list[tuple[Any, ...]]]
Events = list[dict[str, Any]]
Step = tuple[str, str, dict[str, Any]]

LIE = '{"schemaVersion": 2, "layers": [{"digest": "sha256:' + "e" * 64 + '"}]}'
WRONG: dict[str, Any] = {"manifest": LIE, "image_id": "0" * 64}
BARE: dict[str, Any] = {"manifest": None}
RIGHT: dict[str, Any] = {}

STEPS: dict[str, list[Step]] = {
    "digest first": [("team/a", "t", BARE), ("team/a", "u", RIGHT)],
    "digest first, in another repository": [("team/a", "t", BARE), ("team/b", "t", RIGHT)],
    "digest first, with another image_id": [
        ("team/a", "t", {**BARE, "image_id": "0" * 64}),
        ("team/a", "u", RIGHT),
    ],
    "digest first, with another image_id, in the same row": [
        ("team/a", "t", {**BARE, "image_id": "0" * 64}),
        ("team/a", "t", RIGHT),
    ],
    "digest first, with another size and schema": [
        ("team/a", "t", {**BARE, "size": 99, "schema": 1}),
        ("team/b", "t", RIGHT),
    ],
    "digest first, without any field": [
        ("team/a", "t", {**BARE, "size": None, "schema": None, "image_id": None}),
        ("team/b", "t", RIGHT),
    ],
    "another size and image_id with the right bytes": [
        ("team/a", "t", {"size": 99, "schema": 1, "image_id": "0" * 64}),
        ("team/b", "t", RIGHT),
    ],
    "the truth first": [("team/a", "t", RIGHT), ("team/a", "u", WRONG)],
    "the truth first, a lie elsewhere": [("team/a", "t", RIGHT), ("team/b", "t", WRONG)],
    "the truth first, without bytes later": [("team/a", "t", RIGHT), ("team/b", "t", BARE)],
    "a lie first": [("team/a", "t", WRONG), ("team/a", "u", RIGHT)],
    "a lie first, corrected in its row": [("team/a", "t", WRONG), ("team/a", "t", RIGHT)],
    "a lie first, the truth elsewhere": [("team/a", "t", WRONG), ("team/b", "t", RIGHT)],
    "a lie about every field": [
        ("team/a", "t", {**WRONG, "size": 99, "schema": 1}),
        ("team/b", "t", RIGHT),
    ],
    "a lie after the digest": [
        ("team/a", "t", BARE),
        ("team/b", "t", WRONG),
        ("team/c", "t", RIGHT),
    ],
    "two lies": [
        ("team/a", "t", WRONG),
        ("team/b", "t", {"manifest": '{"schemaVersion":2}'}),
        ("team/c", "t", RIGHT),
    ],
}


@pytest.fixture(autouse=True, scope="module")
def no_retries() -> Iterator[None]:
    with stamina.set_testing(True, attempts=1):
        yield


def assert_verified(database: Path) -> None:
    """Check that `verify` finds no fault."""
    with Audit.open(database) as audit:
        assert [row["detail"] for row in audit.verify() if row["result"] != "ok"] == []


def alter(database: Path, sql: str) -> None:
    """Run SQL while the database has no triggers."""
    with (
        closing(sqlite3.connect(database)) as connection,
        connection,
        without_triggers(connection),
    ):
        connection.execute(sql)


def tags_found(database: Path, digest: str) -> set[tuple[str, str]]:
    with Audit.open(database) as audit:
        return {(row["repository"], row["tag"]) for row in audit.find(digest) if row["tag"]}


IMAGES = "SELECT digest, manifest, verified, image_id, size, schema FROM images"


@pytest.mark.parametrize("name", STEPS)
def test_right_manifest_wins_whatever_came_first(
    name: str,
    store: Store,
    database: Path,
    query: Query,
    connect: Callable[..., Registry],
) -> None:
    """The image is what its bytes say, it is found by its layers, and `verify` finds no fault.

    It does not depend on the order of the listings, and each wrong manifest stays in an
    observation.
    """
    steps = STEPS[name]
    with Emulator() as swr:
        registry = connect(swr.url)
        digest = swr.push("team/truth", "t", "content")
        listing: Any = registry.list_tags("team/truth")
        truth: Image = listing.images[digest]
        for repository, tag, fields in steps:
            swr.push(repository, tag, "content", **fields)
            if fields is RIGHT:
                swr.set_fields(repository, tag, **listing_fields(truth))
            for _ in range(2):
                poll(Job(Repository("swr", repository), registry, timedelta(minutes=5)), store)
            assert_verified(database)
    (row,) = query(IMAGES)
    assert row[:3] == (digest, truth.manifest, 1)
    assert row[3].removeprefix("sha256:") == (truth.image_id or "").removeprefix("sha256:")
    assert row[4:] == (truth.size, truth.schema)
    layer = json.loads(truth.manifest or "")["layers"][1]["digest"]
    everywhere = {(f"swr/{repository}", tag) for repository, tag, _ in steps}
    assert tags_found(database, layer) == tags_found(database, digest) == everywhere
    assert tags_found(database, truth.image_id or "") == everywhere
    assert tags_found(database, "0" * 64) == tags_found(database, "e" * 64) == set()
    details = " ".join(str(detail) for (detail,) in query("SELECT detail FROM observations"))
    for _, _, fields in steps:
        if fields.get("manifest"):
            assert digest_of(fields["manifest"].encode()) in details


def listing_fields(truth: Image) -> dict[str, Any]:
    """Return the fields of a right row in an SWR list."""
    return {
        "manifest": truth.manifest,
        "image_id": truth.image_id,
        "size": truth.size,
        "schema": truth.schema,
    }


@pytest.mark.parametrize("order", ["lie first", "truth first"])
def test_lie_and_truth_in_one_listing(
    order: str, store: Store, database: Path, query: Query, connect: Callable[..., Registry]
) -> None:
    """If two rows of a listing name one digest, the right bytes are recorded and the lie named."""
    with Emulator() as swr:
        lie_first = order == "lie first"
        swr.push("team/a", "t1", "content", **(WRONG if lie_first else RIGHT))
        swr.push("team/a", "t2", "content", **(RIGHT if lie_first else WRONG))
        poll(Job(Repository("swr", "team/a"), connect(swr.url), timedelta(minutes=5)), store)
    assert query("SELECT verified FROM images") == [(1,)]
    assert_verified(database)
    liar = "t1" if lie_first else "t2"
    assert query("SELECT reasons, detail FROM observations") == [
        (
            "unverified",
            (
                f"the manifest of {liar} does not match its digest or image_id"
                f" (the registry sent {digest_of(LIE.encode())})"
            ),
        )
    ]


def test_log_and_observation_name_the_wrong_bytes(
    store: Store, query: Query, connect: Callable[..., Registry], logged: Events
) -> None:
    """Other wrong bytes are another observation, and the log has the digest of each."""
    second = '{"schemaVersion": 1}'
    with Emulator() as swr:
        job = Job(Repository("swr", "team/a"), connect(swr.url), timedelta(minutes=5))
        for text in (LIE, LIE, second):
            digest = swr.push("team/a", "t", "content", manifest=text)
            poll(job, store)
        swr.push("team/a", "t", "content", image_id="0" * 64)
    keys = query("SELECT reason_key, detail FROM observations ORDER BY id")
    assert len(keys) == len({key for key, _ in keys}) == 2
    events = [entry for entry in logged if entry["event"] == "image.unverified"]
    assert {entry["digest"] for entry in events} == {digest}
    assert [entry["manifest_digest"] for entry in events] == [
        digest_of(text.encode()) for text in (LIE, second)
    ]


def test_many_wrong_manifests_are_counted(clock: FakeClock) -> None:
    """The message about many wrong manifests is bounded, and its key covers each of them."""
    scripted = Scripted(clock)
    scripted.then(*(f"t{number}" for number in range(500)))
    listing: Any = scripted.script.pop()
    wrong = {f"t{number}": digest_of(str(number).encode()) for number in range(500)}
    listing = msgspec.structs.replace(listing, unverified=tuple(wrong), wrong_manifests=wrong)
    state, past, rules = RepositoryState(), Past(), Rules()
    one: Any = decide(compare(listing, {}), state, past, rules)
    other_wrong = {**wrong, "t499": digest_of(b"other")}
    listing = msgspec.structs.replace(listing, wrong_manifests=other_wrong)
    other: Any = decide(compare(listing, {}), state, past, rules)
    assert len(one.detail) < 1000
    assert "and 490 more)" in one.detail
    assert one.reason_key != other.reason_key


def test_value_that_the_bytes_contradict_is_found(
    store: Store, database: Path, connect: Callable[..., Registry]
) -> None:
    """A value that a registry claimed is a fault if the manifest states another one."""
    with Emulator() as swr:
        job = Job(Repository("swr", "team/a"), connect(swr.url), timedelta(minutes=5))
        swr.push("team/a", "t", "content", size=99)
        poll(job, store)
    assert_verified(database)
    alter(database, "UPDATE images SET size = 99")
    with Audit.open(database) as audit:
        (fault,) = (row for row in audit.verify() if row["result"] != "ok")
    assert "has 99 as size, but its manifest states " in fault["detail"]


# --- OCI ------------------------------------------------------------------------------------------


class Oci:
    """An OCI repository that is polled with its manifests, after a lie about one digest."""

    def __init__(self, fake: Fake, store: Store, clock: FakeClock) -> None:
        self.fake, self._store, self._clock = fake, store, clock
        self._registry = registry_of(fake, clock=clock)

    def poll(self, **settings: Any) -> Poll:
        self._clock.advance(minutes=5)
        job = Job(Repository("oci", REPOSITORY), self._registry, timedelta(minutes=5))
        job = msgspec.structs.replace(job, **{"manifests": True, **settings})
        return poll(job, self._store, clock=self._clock)

    def lie(self, digest: str, body: bytes = LIE.encode()) -> None:
        """Send these bytes for a digest."""
        path = f"/v2/{REPOSITORY}/manifests/{digest}"
        self.fake.overrides["GET", path] = httpx.Response(200, content=body)


@pytest.fixture
def oci(store: Store, clock: FakeClock) -> Oci:
    return Oci(Fake(), store, clock)


def lie_elsewhere(store: Store, clock: FakeClock, digest: str) -> None:
    """Record a digest with wrong bytes, as the list of another registry has it."""
    job = Job(Repository("swr", "team/liar"), Scripted(clock), timedelta(minutes=5))
    wrong = listed_image(digest, LIE, image_id="0" * 64, schema=1, size=99)
    assert wrong.verified is False
    tag = Tag("evil", digest, image_id="0" * 64, schema=1, size=99)
    record(store, job, clock, {"evil": tag}, {digest: wrong})


@pytest.mark.parametrize("manifests_first", [False, True])
def test_manifest_is_fetched_although_another_registry_lied(
    manifests_first: bool, oci: Oci, store: Store, clock: FakeClock, database: Path, query: Query
) -> None:
    """A digest with wrong bytes counts as not recorded, so its manifest is fetched.

    It makes no difference whether the honest registry was polled before, without manifests.
    """
    truth = image("truth")
    oci.fake.tags["good"] = truth
    if not manifests_first:
        oci.fake.tags = {"other": image("other")}
        oci.poll(manifests=False)
        oci.fake.tags["good"] = truth
    lie_elsewhere(store, clock, digest_of(truth))
    assert_verified(database)
    for _ in range(3):
        oci.poll()
        assert_verified(database)
    assert query(f"{IMAGES} WHERE digest = ?", digest_of(truth)) == [
        (digest_of(truth), truth.decode(), 1, digest_of(b"config of truth"), 111, 2)
    ]
    assert tags_found(database, digest_of(b"truth")) == {
        ("oci/team/api", "good"),
        ("swr/team/liar", "evil"),
    }
    assert tags_found(database, "0" * 64) == set()


@pytest.mark.parametrize("liar", ["another registry", "the same registry"])
def test_lie_about_a_manifest_of_an_index(
    liar: str, oci: Oci, store: Store, clock: FakeClock, database: Path, query: Query
) -> None:
    """A wrong manifest of an index keeps neither the index nor its other manifests out."""
    amd, arm = image("amd64"), image("arm64")
    multi = index(amd, arm)
    oci.fake.tags["multi"] = multi
    oci.fake.manifests = {digest_of(amd): amd, digest_of(arm): arm}
    if liar == "another registry":
        lie_elsewhere(store, clock, digest_of(arm))
    else:
        oci.lie(digest_of(arm))
        result = oci.poll()
        assert result.reasons == ("unverified", "unfetched")
        assert digest_of(LIE.encode()) in (result.detail or "")
        assert_verified(database)
        oci.fake.overrides.clear()
    for _ in range(2):
        assert oci.poll().reasons == ()
        assert_verified(database)
    digests = {digest_of(each) for each in (amd, arm, multi)}
    assert dict(query("SELECT digest, verified FROM images")) == dict.fromkeys(digests, 1)
    assert ("oci/team/api", "multi") in tags_found(database, digest_of(b"arm64"))


def test_index_whose_manifests_are_incomplete_is_not_a_fault(
    oci: Oci, database: Path, query: Query
) -> None:
    """A manifest that was recorded before its index is no fault, also if the index never comes."""
    amd, arm = image("amd64"), image("arm64")
    oci.fake.tags["multi"] = index(amd, arm)
    oci.fake.manifests = {digest_of(amd): amd, digest_of(arm): arm}
    path = f"/v2/{REPOSITORY}/manifests/{digest_of(arm)}"
    oci.fake.overrides["GET", path] = httpx.Response(503)
    oci.poll()
    assert query("SELECT count(*) FROM images WHERE verified") == [(1,)]
    assert_verified(database)
    oci.fake.tags = {"multi": amd}
    oci.poll()
    assert_verified(database)
    alter(database, "UPDATE observations SET reasons = NULL")
    with Audit.open(database) as audit:
        (row,) = (row for row in audit.verify() if row["check"] == "images")
    assert "was first observed at" in row["detail"]


def test_manifests_left_behind_by_a_move_are_not_recorded(clock: FakeClock) -> None:
    """A tag that moves between two reads leaves no manifests of its old index behind."""
    old, new = image("old"), image("new")
    reads = []
    for part in (old, new):
        found = Image(digest_of(index(part)), manifest=index(part).decode(), verified=True)
        child = Image(digest_of(part), manifest=part.decode(), verified=True)
        scripted = Scripted(clock)
        scripted.then(Tag("multi", found.digest))
        images, children = {found.digest: found}, {child.digest: child}
        read: Any = scripted.script.pop()
        reads.append(msgspec.structs.replace(read, images=images, children=children))
    merged = merge_reads(*reads)
    assert merged.children.keys() == {digest_of(new)}
    assert merge_reads(*reversed(reads)).children.keys() == {digest_of(old)}


@pytest.mark.parametrize("first", [Image("sha256:a"), Image("sha256:a", verified=False)])
def test_second_read_may_have_the_right_manifest(first: Image, clock: FakeClock) -> None:
    """Of two reads of a digest, the one with the right manifest is used."""
    right = Image("sha256:a", manifest="{}", verified=True)
    reads = []
    for each in (first, right):
        scripted = Scripted(clock)
        scripted.then(Tag("t", "sha256:a"))
        read: Any = scripted.script.pop()
        reads.append(msgspec.structs.replace(read, images={"sha256:a": each}))
    assert merge_reads(*reads).images == {"sha256:a": right}
    assert merge_reads(*reversed(reads)).images == {"sha256:a": right}

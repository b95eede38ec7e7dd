"""Polls of an OCI registry, and the history that they record."""

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

from tagsync.database.store import Store
from tagsync.models import Repository
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tagsync.registries.oci.api import Oci
from tests.support.clock import FakeClock
from tests.support.docker_registry import digest_of
from tests.support.oci import REPOSITORY, Fake, errors, image, index, registry_of
from tests.support.polls import counts
from tests.support.record import assert_history_is_whole

Query = Callable[..., list[tuple[Any, ...]]]
Events = list[dict[str, Any]]

MOVES = "SELECT tag, old_digest, new_digest FROM change_log WHERE moved"


@pytest.fixture(autouse=True, scope="module")
def no_retries() -> Iterator[None]:
    with stamina.set_testing(True, attempts=1):
        yield


@pytest.fixture
def fake() -> Fake:
    return Fake({"v1": image("one"), "v2": image("two"), "nightly": image("night 1")})


@pytest.fixture
def registry(fake: Fake, clock: FakeClock) -> Iterator[Oci]:
    with closing(registry_of(fake, clock=clock)) as opened:
        yield opened


class Polls:
    """Polls the fake repository once a minute by the test's clock."""

    def __init__(self, registry: Oci, store: Store, clock: FakeClock) -> None:
        self._job = Job(Repository("reg", REPOSITORY), registry, timedelta(minutes=5))
        self._store = store
        self._clock = clock

    def __call__(self, **settings: Any) -> tuple[str, int, int, int]:
        """Poll with these settings of the job; return the outcome and the counts."""
        self._clock.advance(minutes=1)
        job = msgspec.structs.replace(self._job, **settings)
        return counts(poll(job, self._store, clock=self._clock))


@pytest.fixture
def poll_again(registry: Oci, store: Store, clock: FakeClock) -> Polls:
    return Polls(registry, store, clock)


def test_changing_the_resolved_tags_is_not_a_move(
    poll_again: Polls, fake: Fake, query: Query, logged: Events, database: Path
) -> None:
    """A change of `tags` records no deletion and no move.

    The digest of a tag is unknown while the tag is not resolved, and the history says so.
    """
    one, night = digest_of(image("one")), digest_of(image("night 1"))
    assert poll_again() == ("ok", 3, 0, 0)
    assert poll_again(tags=("v*",)) == ("ok", 0, 1, 0)
    fake.tags["nightly"] = image("night 2")
    assert poll_again(tags=("v*",)) == ("ok", 0, 0, 0)
    assert poll_again() == ("ok", 0, 1, 0)
    night_2 = digest_of(image("night 2"))
    assert query("SELECT kind, old_digest, new_digest FROM changes WHERE tag = 'nightly'") == [
        ("added", None, night),
        ("updated", night, None),
        ("updated", None, night_2),
    ]
    assert query(MOVES) == []
    assert {e["moved"] for e in logged if e["event"] == "tag.updated"} == {False}
    assert query("SELECT digest, valid_to IS NULL FROM tag_history WHERE tag = 'nightly'") == [
        (night, 0),
        (None, 0),
        (night_2, 1),
    ]
    assert query("SELECT digest FROM tag_history WHERE tag = 'v1'") == [(one,)]
    assert_history_is_whole(database)


def test_listed_tag_without_manifest_keeps_its_digest(
    poll_again: Polls, fake: Fake, query: Query, logged: Events, database: Path
) -> None:
    """A listed tag whose manifest is missing keeps its digest and is noted."""
    poll_again()
    fake.refuse("v1", 404)
    assert poll_again() == ("ok", 0, 0, 0)
    assert poll_again() == ("ok", 0, 0, 0)
    assert query("SELECT digest FROM tags WHERE tag = 'v1'") == [(digest_of(image("one")),)]
    assert query("SELECT outcome, detail, polls FROM observations ORDER BY id") == [
        ("ok", None, 1),
        ("ok", "the registry lists v1 but has no manifest for it", 2),
    ]
    assert [e["tag"] for e in logged if e["event"] == "tag.unresolved"] == ["v1"]
    fake.overrides.clear()
    fake.tags["v1"] = image("one again")
    assert poll_again() == ("ok", 0, 1, 0)
    assert query(MOVES) == [("v1", digest_of(image("one")), digest_of(image("one again")))]
    assert_history_is_whole(database)


def test_odd_tag_keeps_its_digest(
    poll_again: Polls, fake: Fake, query: Query, logged: Events, database: Path
) -> None:
    """A tag whose manifest cannot be read keeps its digest, and the others are recorded."""
    poll_again()
    fake.refuse("v1", 500)
    fake.tags["v2"] = image("two again")
    assert poll_again() == ("ok", 0, 1, 0)
    assert poll_again() == ("ok", 0, 0, 0)
    assert query("SELECT digest FROM tags WHERE tag = 'v1'") == [(digest_of(image("one")),)]
    (row,) = query("SELECT outcome, reasons, detail, polls FROM observations WHERE reasons <> ''")
    assert row[:2] == ("ok", "unresolved")
    assert "the manifest of v1 could not be read (http" in row[2]
    assert row[3] == 2
    (event,) = [e for e in logged if e["event"] == "tag.unresolved"]
    assert (event["tag"], "answered 500" in event["error"]) == ("v1", True)
    del fake.tags["nightly"]
    assert poll_again() == ("ok", 0, 0, 1)
    fake.overrides.clear()
    assert poll_again() == ("ok", 0, 0, 0)
    assert query(MOVES) == [("v2", digest_of(image("two")), digest_of(image("two again")))]
    assert_history_is_whole(database)


def test_name_that_cannot_be_a_tag_is_left_out(
    poll_again: Polls, fake: Fake, query: Query, logged: Events, database: Path
) -> None:
    """A listed name that no tag can have is left out and named, and the others are recorded."""
    odd = digest_of(b"a child")
    fake.tags |= {odd: image("child"), "\x1b[2J\n": image("x")}
    assert poll_again() == ("ok", 3, 0, 0)
    assert poll_again() == ("ok", 0, 0, 0)
    (row,) = query("SELECT reasons, detail, polls FROM observations")
    assert row[0] == "bad_name"
    assert row[1].isprintable()
    assert "which cannot be a tag and is left out" in row[1]
    assert row[2] == 2
    (event,) = [e for e in logged if e["event"] == "tag.skipped"]
    assert event["count"] == 2
    assert odd in event["names"]
    assert_history_is_whole(database)


def test_missing_manifest_is_confirmed_daily(
    poll_again: Polls, fake: Fake, clock: FakeClock
) -> None:
    """While nothing changes, a missing manifest is requested by GET once a day."""
    fake.refuse("v1", 404)
    poll_again()
    for _ in range(3):
        poll_again()
    assert fake.asked("GET") == ["v1"]
    clock.advance(days=1)
    poll_again()
    poll_again()
    assert fake.asked("GET") == ["v1"] * 2


def test_discovered_repository_that_does_not_exist_is_empty(
    poll_again: Polls, fake: Fake, query: Query
) -> None:
    """A repository that only a catalogue lists is empty if it is 404; a named one fails."""
    path = f"/v2/{REPOSITORY}/tags/list"
    fake.overrides["GET", path] = httpx.Response(404, json=errors("NAME_UNKNOWN"))
    assert poll_again()[0] == "failed"
    assert poll_again(discovered=True) == ("ok", 0, 0, 0)
    assert query("SELECT reasons FROM observations ORDER BY id DESC LIMIT 1") == [("gone",)]
    fake.overrides.clear()
    assert poll_again(discovered=True) == ("ok", 3, 0, 0)


def test_page_in_place_of_manifests_is_not_a_move(
    poll_again: Polls, fake: Fake, query: Query
) -> None:
    """A front server that answers every manifest with a page records no move."""
    poll_again()
    for tag in fake.tags:
        for method in ("HEAD", "GET"):
            fake.overrides[method, f"/v2/{REPOSITORY}/manifests/{tag}"] = httpx.Response(
                200, content=b"" if method == "HEAD" else b"<html>Sign in</html>"
            )
    assert poll_again()[0] == "failed"
    fake.overrides.clear()
    assert poll_again() == ("ok", 0, 0, 0)
    assert query(MOVES) == []


def test_first_digest_of_an_unresolved_tag_is_not_a_move(
    poll_again: Polls, fake: Fake, query: Query
) -> None:
    """A tag without a manifest has no digest; getting its first one is not a move."""
    fake.refuse("v1", 404)
    assert poll_again() == ("ok", 3, 0, 0)
    assert query("SELECT digest FROM tags WHERE tag = 'v1'") == [(None,)]
    fake.overrides.clear()
    assert poll_again() == ("ok", 0, 1, 0)
    assert query(MOVES) == []


def test_tag_missing_from_one_list_is_not_deleted(
    poll_again: Polls, fake: Fake, query: Query, logged: Events
) -> None:
    """A tag that only one of two lists lacks stays, at the cost of one more request."""
    poll_again()
    lists = iter([["v1", "nightly"], ["v1", "v2", "nightly"]])
    whole = fake.tags
    fake.requests.clear()

    class ChangingTags(dict[str, bytes]):
        def __iter__(self) -> Iterator[str]:
            return iter(next(lists))

    fake.tags = ChangingTags(whole)
    assert poll_again() == ("ok", 0, 0, 0)
    assert fake.asked("HEAD") == ["nightly", "v1", "v2"]
    assert query("SELECT count(*) FROM changes WHERE kind = 'deleted'") == [(0,)]
    finished = [e for e in logged if e["event"] == "sync.finished"]
    assert finished[-1]["requests"] == 5


def test_tag_missing_from_two_lists_is_deleted(poll_again: Polls, fake: Fake, query: Query) -> None:
    """A tag that two lists lack is deleted, and each digest is requested once."""
    poll_again()
    del fake.tags["v2"]
    fake.requests.clear()
    assert poll_again() == ("ok", 0, 0, 1)
    assert fake.asked("HEAD") == ["nightly", "v1"]
    assert query("SELECT tag FROM changes WHERE kind = 'deleted'") == [("v2",)]


def test_missing_repository_is_held_first(poll_again: Polls, fake: Fake) -> None:
    """A repository that does not exist any more is held like an emptied one."""
    poll_again()
    body = {"errors": [{"code": "NAME_UNKNOWN"}]}
    fake.overrides["GET", f"/v2/{REPOSITORY}/tags/list"] = httpx.Response(404, json=body)
    assert poll_again()[0] == "held"
    assert poll_again() == ("ok", 0, 0, 3)


def test_404_of_another_server_fails(poll_again: Polls, fake: Fake) -> None:
    """A 404 response that is not a registry's fails the poll and deletes nothing."""
    poll_again()
    fake.overrides["GET", f"/v2/{REPOSITORY}/tags/list"] = httpx.Response(404, content=b"<html>")
    assert [poll_again()[0] for _ in range(3)] == ["failed"] * 3


def test_manifests_of_known_images_are_fetched_later(
    poll_again: Polls, fake: Fake, query: Query, database: Path
) -> None:
    """Known images get their manifests once `manifests` is set, and keep them."""
    amd, arm = image("amd64"), image("arm64")
    fake.tags["multi"] = index(amd, arm)
    fake.manifests = {digest_of(amd): amd, digest_of(arm): arm}
    poll_again()
    assert query("SELECT count(*) FROM images WHERE manifest IS NULL") == [(4,)]
    assert poll_again(manifests=True) == ("ok", 0, 0, 0)
    assert query("SELECT count(*), sum(verified), count(size) FROM images") == [(6, 6, 5)]
    assert query("SELECT count(*) FROM image_platforms") == [(2,)]
    layer = digest_of(b"arm64")
    assert query("SELECT digest FROM image_layers WHERE layer_digest = ?", layer) == [
        (digest_of(arm),)
    ]
    assert query("SELECT size, image_id FROM current_tags WHERE tag = 'v1'") == [
        (111, digest_of(b"config of one"))
    ]
    fake.requests.clear()
    assert poll_again(manifests=True) == ("ok", 0, 0, 0)
    assert fake.asked("GET") == []
    assert poll_again() == ("ok", 0, 0, 0)
    assert query("SELECT count(*) FROM changes") == [(4,)]
    assert_history_is_whole(database)


def test_unfetched_manifest_is_fetched_by_the_next_poll(
    poll_again: Polls, fake: Fake, query: Query, logged: Events
) -> None:
    """A manifest that could not be fetched is logged, and the next poll fetches it."""
    path = f"/v2/{REPOSITORY}/manifests/{digest_of(image('one'))}"
    fake.overrides["GET", path] = httpx.Response(200, content=b"<html>")
    assert poll_again(manifests=True) == ("ok", 3, 0, 0)
    events = [e["event"] for e in logged if e["log_level"] == "warning"]
    assert events == ["image.unverified", "manifests.unfetched"]
    assert query("SELECT detail FROM observations") == [
        (
            (
                "the manifest of v1 does not match its digest or image_id (the registry sent"
                f" {digest_of(b'<html>')}); some manifests could not be fetched yet"
            ),
        )
    ]
    fake.overrides.clear()
    fake.requests.clear()
    assert poll_again(manifests=True) == ("ok", 0, 0, 0)
    assert fake.asked("GET") == [digest_of(image("one"))]
    assert query("SELECT count(*) FROM images WHERE verified") == [(3,)]
    assert query("SELECT detail FROM observations ORDER BY id DESC LIMIT 1") == [(None,)]


def test_index_is_completed_by_the_next_poll(poll_again: Polls, fake: Fake, query: Query) -> None:
    """An index is recorded once a later poll has fetched its missing manifests."""
    amd, arm = image("amd64"), image("arm64")
    multi = index(amd, arm)
    fake.tags = {"multi": multi}
    fake.manifests = {digest_of(amd): amd, digest_of(arm): arm}
    path = f"/v2/{REPOSITORY}/manifests/{digest_of(arm)}"
    fake.overrides["GET", path] = httpx.Response(503)
    poll_again(manifests=True)
    assert query("SELECT digest FROM images WHERE verified") == [(digest_of(amd),)]
    fake.overrides.clear()
    fake.requests.clear()
    poll_again(manifests=True)
    assert fake.asked("GET") == sorted([digest_of(arm), digest_of(multi)])
    assert query("SELECT count(*) FROM images WHERE verified") == [(3,)]


def test_repository_without_namespace(store: Store, query: Query) -> None:
    """The namespace of a repository name without a slash is empty."""

    def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"tags": None})

    with closing(registry_of(handler)) as registry:
        job = Job(Repository("reg", "busybox"), registry, timedelta(minutes=5))
        assert poll(job, store).outcome == "ok"
    assert query("SELECT namespace, name FROM repositories") == [("", "busybox")]


def test_verified_manifest_is_recorded_even_if_malformed(
    database: Path, poll_again: Polls, fake: Fake
) -> None:
    """A manifest that matches its digest is recorded even if it is not valid JSON."""
    odd = '{"schemaVersion": 2, "mediaType": 7, "layers": "ä"'.encode()
    fake.tags = {"odd": odd}
    assert poll_again(manifests=True) == ("ok", 1, 0, 0)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT manifest, verified FROM images").fetchall() == [
            (odd.decode(), 1)
        ]
        assert connection.execute("SELECT * FROM image_layers").fetchall() == []

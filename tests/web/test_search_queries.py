"""The queries behind the search answer as ``find`` does, and bound what they read."""

from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tagsync.database.connection import reading
from tagsync.database.store import Store
from tagsync.models import Repository, Tag
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tagsync.web.search_queries import (
    _BEGINNING_SQL,
    ROWS,
    answer,
    exact_hit,
    registries_by_host,
)
from tagsync.web.search_text import parse
from tagsync.web.snapshot import Snapshot, snapshot
from tests.support.audit import at
from tests.support.clock import FakeClock
from tests.support.registries import Scripted, poll_any_names

ENDPOINTS = {
    "swr": "https://swr-api.eu.example.com/",
    "hub": "https://registry-1.docker.io",
    "own": "http://registry.example.com:5000",
}
HEX = {text: sha256(text.encode()).hexdigest() for text in ("one", "two")}
ONE, TWO = (f"sha256:{digits}" for digits in HEX.values())


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Snapshot]:
    """A name in two registries, and tags that move."""
    database, clock = tmp_path_factory.mktemp("search") / "tagsync.db", FakeClock()
    with Store.open(database) as store:
        fill(store, clock)
    with reading(database) as db:
        yield snapshot(db, database, (), clock(), registries_by_host(ENDPOINTS))


def fill(store: Store, clock: FakeClock) -> None:
    """Record what `record` describes."""

    def listed(registry: str, name: str, minute: float, tags: dict[str, str]) -> None:
        clock.now = FakeClock().now + timedelta(minutes=minute)
        poll_any_names(store, clock, Repository(registry, name), tags)

    listed("swr", "team/api", 0, {"latest": "one", "v1": "one"})
    listed("own", "team/api", 1, {"latest": "one"})
    listed("hub", "library/nginx", 2, {"latest": "two", "<b>": "one"})
    listed("swr", "team/api", 5, {"latest": "two"})
    listed("swr", "team/api-gateway", 6, {"main": "two"})
    listed("own", "team/api", 100, {"latest": "one"})


def search(record: Snapshot, text: str, minute: float | None = None) -> dict[str, Any]:
    return answer(record, parse(text), None if minute is None else at(minute))


@pytest.mark.parametrize("text", [ONE, HEX["two"], TWO[:20], HEX["one"][:6], HEX["one"].upper()])
def test_a_digest_is_answered_as_by_find(record: Snapshot, text: str) -> None:
    """A digest or its beginning gives the rows of ``find``."""
    found = search(record, text)["digest"]
    assert msgspec.json.encode(found["rows"]) == msgspec.json.encode(list(record.audit.find(text)))
    assert (found["complete"], found["more"]) == (True, False)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("l", ["hub/library/nginx:latest", "own/team/api:latest", "swr/team/api:latest"]),
        ("lat*", ["hub/library/nginx:latest", "own/team/api:latest", "swr/team/api:latest"]),
        ("latest", []),
        ("L", []),
        ("v", []),
        ("m", ["swr/team/api-gateway:main"]),
        ("l%", []),
        ("*", []),
    ],
)
def test_tags_are_found_by_their_beginning(record: Snapshot, text: str, found: list[str]) -> None:
    """Longer tags that begin with the text and exist now are found, but not for a moment."""
    rows = search(record, text)["tags_beginning"]["rows"]
    assert [f"{row['repository']}:{row['tag']}" for row in rows] == found
    assert search(record, text, 2)["tags_beginning"] is None


def test_tags_are_found_without_reading_all(record: Snapshot) -> None:
    """Tags are found by the key of their table, in the order in which they are shown."""
    plan = record.query(
        f"EXPLAIN QUERY PLAN {_BEGINNING_SQL}", {"beginning": "v", "limit": ROWS + 1}
    )
    steps = " ".join(row["detail"] for row in plan)
    assert "SEARCH t USING PRIMARY KEY (repository_id=? AND tag>? AND tag<?)" in steps
    assert "SCAN r USING INDEX repositories_by_full_name" in steps


def test_an_unknown_and_an_invalid_digest(record: Snapshot) -> None:
    """An unknown digest has no rows; a text that is no digest has a sentence."""
    unknown = search(record, f"sha256:{'0' * 64}")["digest"]
    assert (unknown["role"], unknown["rows"]) == ("unknown", [])
    assert "invalid digest" in search(record, "sha256:xyz")["digest"]["unclear"]


def test_an_ambiguous_beginning_lists_the_digests(
    store: Store, database: Path, clock: FakeClock, scripted: Scripted, job: Job
) -> None:
    """The digests that begin with the digits are listed, whole, so that each can be chosen."""
    digests = [f"sha256:abcdef{number:x}{'0' * 57}" for number in range(12)]
    scripted.then(*(Tag(f"v{number}", digest) for number, digest in enumerate(digests)))
    poll(job, store, clock=clock)
    with reading(database) as db:
        record = snapshot(db, database, (), clock())
        found = search(record, "abcdef")["digest"]["candidates"]
        assert found == digests[:10]
        assert search(record, "abcdef2")["digest"]["query"] == digests[2]


@pytest.mark.parametrize(
    ("minute", "led"),
    [
        (-1, {}),
        (0, {"swr/team/api:latest": "yes", "swr/team/api:v1": "yes"}),
        (1, {"own/team/api:latest": "yes", "swr/team/api:latest": "maybe"}),
        (6, {"hub/library/nginx:<b>": "maybe", "own/team/api:latest": "maybe"}),
        (50, {"own/team/api:latest": "maybe"}),
        (100, {"own/team/api:latest": "yes"}),
    ],
)
def test_a_digest_at_a_moment(record: Snapshot, minute: float, led: dict[str, str]) -> None:
    """Only tags that led there at the moment, or may have, are shown."""
    rows = search(record, ONE, minute)["digest"]["rows"]
    found = {f"{row['repository']}:{row['tag']}": row["led"] for row in rows}
    assert led.items() <= found.items()
    certain = {
        f"{row['repository']}:{row['tag']}"
        for row in record.audit.tags_at([], at(minute))
        if row["digest"] == ONE and row["certainty"] == "certain"
    }
    assert {name for name, answer in found.items() if answer == "yes"} == certain


@pytest.mark.parametrize(
    ("text", "hit"),
    [
        ("swr/team/api", ("swr/team/api", None)),
        ("swr/team/api:v1", ("swr/team/api", "v1")),
        ("hub/library/nginx:<b>", ("hub/library/nginx", "<b>")),
        ("team/api", None),
        ("team/api-gateway", ("swr/team/api-gateway", None)),
        ("swr/team/api:nothing", None),
        ("api", None),
        ("latest", None),
        ("swr.eu.example.com/team/api:v1", ("swr/team/api", "v1")),
        ("docker pull registry.example.com:5000/team/api", ("own/team/api", None)),
        ("docker pull nginx:latest", ("hub/library/nginx", "latest")),
        ("docker.io/library/nginx", ("hub/library/nginx", None)),
        ("elsewhere.example.com/team/api", None),
        ("elsewhere.example.com/team/api-gateway", ("swr/team/api-gateway", None)),
        (f"swr/team/api:v1@{ONE}", None),
        (ONE, None),
        ("", None),
        ("swr/team/*", None),
        ("swr/team/api' OR '1'='1", None),
    ],
)
def test_the_only_hit(record: Snapshot, text: str, hit: tuple[str, str | None] | None) -> None:
    """The full name of one repository or tag is a hit; a part of a name, or two, are not."""
    assert exact_hit(record, parse(text)) == hit


def test_a_part_of_a_name_and_a_tag(record: Snapshot) -> None:
    """A bare word is a part of names of repositories, and the name of a tag."""
    found = search(record, "LATEST")
    assert (found["repositories"]["rows"], found["tags_named"]["rows"]) == ([], [])
    found = search(record, "latest")
    assert [(row["repository"], row["digest"]) for row in found["tags_named"]["rows"]] == [
        ("hub/library/nginx", TWO),
        ("own/team/api", ONE),
        ("swr/team/api", TWO),
    ]
    names = [row["repository"] for row in search(record, "API")["repositories"]["rows"]]
    assert names == ["own/team/api", "swr/team/api", "swr/team/api-gateway"]
    (deleted,) = search(record, "v1")["tags_named"]["rows"]
    assert (deleted["repository"], deleted["present"]) == ("swr/team/api", 0)


def test_a_tag_by_name_at_a_moment(record: Snapshot) -> None:
    """The states of a tag are the rows of ``tags --at``."""
    (row,) = search(record, "v1", 3)["tags_named"]["rows"]
    expected = list(record.audit.tags_at(["swr/team/api:v1"], at(3)))
    assert msgspec.json.encode(row["states"]) == msgspec.json.encode(expected)


def test_a_reference_with_a_digest(record: Snapshot) -> None:
    """A reference shows what the tag points to, and the rows of its digest."""
    found = search(record, f"docker pull elsewhere.example.com/team/api:latest@{ONE}")
    rows = found["reference"]["rows"]
    assert [(row["repository"], row["tag"], row["digest"]) for row in rows] == [
        ("own/team/api", "latest", ONE),
        ("swr/team/api", "latest", TWO),
    ]
    assert not found["reference"]["known_host"]
    assert found["digest"]["query"] == ONE
    assert search(record, "swr.eu.example.com/nowhere:v1")["reference"]["rows"] == []


def test_hosts_of_registries() -> None:
    """Images of SWR and of Docker Hub are pulled from other hosts than their endpoints."""
    assert registries_by_host(ENDPOINTS) == {
        "swr-api.eu.example.com": ["swr"],
        "swr.eu.example.com": ["swr"],
        "registry-1.docker.io": ["hub"],
        "docker.io": ["hub"],
        "index.docker.io": ["hub"],
        "registry.example.com:5000": ["own"],
    }

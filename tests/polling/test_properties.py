"""Properties: a response is a listing or an error; listings are stored exactly."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import stamina
from hypothesis import given
from hypothesis import strategies as st

from tagsync.database import schema
from tagsync.database.connection import connect_for_reading
from tagsync.database.store import Store
from tagsync.errors import RegistryError
from tagsync.manifests import may_be_digest
from tagsync.models import TAG, Change, Listing, Repository, Tag
from tagsync.polling.decide import apply, diff
from tagsync.polling.jobs import Job, Options
from tagsync.polling.poll import poll
from tagsync.registries.client import Client, Limits
from tagsync.registries.pacing import Pacer
from tagsync.registries.responses import Answer, refusal_error
from tagsync.registries.swr.api import REFUSALS, Swr, tags_path
from tagsync.secrets import Secret
from tests.support.hostile import BODIES, GOOD_ROWS, HEADERS, INT64, TEXTS
from tests.support.record import assert_history_is_whole

SECRET = "made-up-secret"

Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(autouse=True, scope="module")
def no_retries() -> Iterator[None]:
    """Disable retries, so that the first refusal is final."""
    with stamina.set_testing(True, attempts=1):
        yield


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Store]]:
    """A database that all examples share; each example is a repository of its own."""
    path = tmp_path_factory.mktemp("properties") / "tagsync.db"
    with Store.open(path) as store:
        yield path, store


numbers = count()


def registry_of(handler: Handler) -> Swr:
    """Return an SWR registry whose network is a function."""
    bound = 2**24
    client = Client(
        "http://127.0.0.1",
        None,
        REFUSALS,
        Limits(max_listing_bytes=bound),
        secrets=lambda: (Secret(SECRET),),
        transport=httpx.MockTransport(handler),
        pacer=Pacer(1e9),
    )
    return Swr(client, bound)


def responding_with(body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> Handler:
    return lambda _: httpx.Response(200, content=body, headers=headers)


def tags_of(store: Store, repository: Repository) -> dict[str, Tag]:
    return store.tags(repository)


def assert_is_one_sentence(error: RegistryError) -> None:
    text = str(error)
    assert text.isprintable()
    assert len(text) < 1500
    assert SECRET not in text
    assert error.retry_after is None or 0 <= error.retry_after <= 86400
    assert (error.code or "").isprintable()


TAGS = st.builds(
    Tag,
    TEXTS,
    **{
        field.name: st.none()
        | (
            st.booleans()
            if "bool" in str(field.type)
            else INT64
            if "int" in str(field.type)
            else TEXTS
        )
        for field in msgspec.structs.fields(Tag)[1:]
    },
)
LISTINGS = st.lists(TAGS, max_size=6).map(lambda tags: {tag.tag: tag for tag in tags})


@given(LISTINGS, LISTINGS)
def test_difference_survives_json(old: dict[str, Tag], new: dict[str, Tag]) -> None:
    """Changes stored as JSON, as in the history, still give the new listing."""
    stored = [
        msgspec.structs.replace(change, fields=json.loads(msgspec.json.encode(change.fields)))
        for change in diff(old, new)
    ]
    assert apply(old, stored) == new
    assert diff(new, apply(old, stored)) == []


@given(LISTINGS, LISTINGS)
def test_opposite_differences_cancel(old: dict[str, Tag], new: dict[str, Tag]) -> None:
    """A difference and its opposite cancel, and affect the same tags."""
    there, back = diff(old, new), diff(new, old)
    assert apply(apply(old, there), back) == old
    assert [change.tag for change in there] == [change.tag for change in back]


@given(body=BODIES, headers=HEADERS)
def test_any_response_is_recorded_exactly_or_rejected(
    recorded: tuple[Path, Store], body: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    """A response is recorded and read back exactly, or it raises a RegistryError."""
    path, store = recorded
    repository = Repository("swr", f"team/any-{next(numbers)}")
    with closing(registry_of(responding_with(body, headers))) as registry:
        try:
            listing = registry.list_tags(repository.name)
        except RegistryError as error:
            assert_is_one_sentence(error)
            return
        assert isinstance(listing, Listing)
        result = poll(Job(repository, registry, timedelta(minutes=5)), store)
    assert result.outcome == "ok"
    assert tags_of(store, repository) == listing.tags
    assert_views_work(path, repository)


@given(first=GOOD_ROWS, second=GOOD_ROWS)
def test_unusual_listings_and_their_changes_are_recorded_exactly(
    recorded: tuple[Path, Store], first: list[dict[str, Any]], second: list[dict[str, Any]]
) -> None:
    """Mirror, history and views hold values as the registry sent them.

    A row without a digest keeps what was recorded of its tag, and a text that is no tag is left
    out.
    """
    path, store = recorded
    repository = Repository("swr", f"team/two-{next(numbers)}")
    for rows in (first, second):
        before = tags_of(store, repository)
        body = json.dumps(rows).encode()
        with closing(registry_of(responding_with(body))) as registry:
            job = Job(repository, registry, timedelta(minutes=5))
            outcome = poll(job, store, Options(accept_deletions=True)).outcome
        stored = tags_of(store, repository)
        named = {row["Tag"]: row for row in rows if TAG.fullmatch(row["Tag"])}
        texts = [text for row in named.values() if (text := row.get("digest"))]
        if texts and not any(map(may_be_digest, texts)):
            assert (outcome, stored) == ("failed", before)
            continue
        assert outcome == "ok"
        assert stored.keys() == named.keys()
        for name, row in named.items():
            tag, digest = stored[name], row.get("digest") or ""
            if not may_be_digest(digest):
                assert tag == before[name] if name in before else tag.digest is None
                continue
            assert tag.digest == digest
            assert (tag.size, tag.registry_id) == (row.get("size"), row.get("id"))
            assert (tag.path, tag.is_trusted) == (row.get("path"), row.get("is_trusted"))
    assert replay(store, path, repository) == tags_of(store, repository)
    assert_views_work(path, repository)


def replay(store: Store, path: Path, repository: Repository) -> dict[str, Tag]:
    """Return the tags of a repository according to its history alone."""
    tags: dict[str, Tag] = {}
    with closing(connect_for_reading(path)) as db:
        for tag, kind, old, new, fields in db.execute(
            "SELECT tag, kind, old_digest, new_digest, fields FROM changes"
            " WHERE repository_id = ? ORDER BY id",
            (store.state(repository).id,),
        ):
            tags = apply(tags, [Change(tag, kind, old, new, json.loads(fields))])
    return tags


def assert_views_work(path: Path, repository: Repository) -> None:
    """Check that no view fails on the manifests and names of a repository."""
    with closing(connect_for_reading(path)) as db:
        for view in re.findall(r"CREATE VIEW (\w+)", schema.VIEWS):
            key = "digest" if view == "image_layers" else "index_digest"
            condition = (
                f"WHERE {key} IN (SELECT digest FROM current_tags WHERE repository = ?)"
                if view.startswith("image_")
                else "WHERE repository = ?"
            )
            db.execute(f"SELECT * FROM {view} {condition}", (repository.full_name,)).fetchall()


def test_history_of_all_examples_is_whole(recorded: tuple[Path, Store]) -> None:
    """After all examples, the hash chain verifies and a replay gives the mirror."""
    assert_history_is_whole(recorded[0])


@given(body=BODIES, status=st.integers(100, 599).filter(lambda s: s != 200), headers=HEADERS)
def test_any_refusal_is_one_sentence(
    body: bytes, status: int, headers: list[tuple[bytes, bytes]]
) -> None:
    """A refusal with any body and headers becomes an error of one printable line."""
    answer = Answer("http://127.0.0.1/x", status, httpx.Headers(headers), body)
    error = refusal_error(answer, REFUSALS, (Secret(SECRET),))
    assert_is_one_sentence(error)
    assert error.status == status


@given(text=st.text(max_size=300), where=st.sampled_from(["errorCode", "errorMessage", "Location"]))
def test_secret_in_a_refusal_is_removed(text: str, where: str) -> None:
    """A secret that a server repeats anywhere in a refusal is not in the error."""
    echo = f"{text}{SECRET}{text}"
    body = json.dumps({"errorCode": "x", "errorMessage": "y", where: echo}).encode()
    headers = [(b"Location", echo.encode())]
    answer = Answer("http://127.0.0.1/x", 302, httpx.Headers(headers), body)
    error = refusal_error(answer, REFUSALS, (Secret(SECRET),))
    assert SECRET not in f"{error} {error.code} {error!r}"


REPOSITORIES = (
    BODIES
    | st.lists(st.fixed_dictionaries({"name": TEXTS, "namespace": TEXTS}), max_size=4).map(
        lambda rows: json.dumps(rows).encode()
    )
    | st.lists(st.fixed_dictionaries({"name": TEXTS}), max_size=4).map(
        lambda rows: json.dumps({"namespaces": rows}).encode()
    )
)


@given(first=REPOSITORIES, later=REPOSITORIES)
def test_discovered_names_stay_below_their_namespace(first: bytes, later: bytes) -> None:
    """The path of a discovered repository stays below the list of its namespace."""
    bodies = iter([first])

    def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=next(bodies, later))

    with closing(registry_of(handler)) as registry:
        try:
            found = registry.list_repositories(["*"], shared=True)
        except RegistryError as error:
            assert_is_one_sentence(error)
            return
    for name in found:
        path = httpx.URL(f"http://127.0.0.1{tags_path(name)}").raw_path
        assert path.count(b"/") == 7
        assert path.startswith(b"/v2/manage/namespaces/")
        assert path.endswith(b"/tags")
        assert b"/repos/" in path


@pytest.mark.parametrize(
    ("namespace", "name"),
    [("team", ".."), ("team", "."), ("..", "api"), (".", "api"), ("a/b", "c"), ("team", "a$b")],
)
def test_name_that_changes_the_path_is_not_discovered(namespace: str, name: str) -> None:
    """A repository whose name would lead to another path is left out; the others are found."""
    rows = [{"namespace": namespace, "name": name}, {"namespace": "team", "name": "web"}]
    with closing(registry_of(responding_with(json.dumps(rows).encode()))) as registry:
        assert registry.list_repositories(["team/*"]) == {"team/web"}

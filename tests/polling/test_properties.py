"""Whatever a registry sends is a listing or an error, and a listing is kept to the letter."""

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
from tagsync.models import Change, Listing, Repository, Tag
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
    """Takes each refusal as final."""
    with stamina.set_testing(True, attempts=1):
        yield


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Store]]:
    """One database for all examples, each of which is a repository of its own."""
    path = tmp_path_factory.mktemp("properties") / "tagsync.db"
    with Store.open(path) as store:
        yield path, store


numbers = count()


def registry_of(handler: Handler) -> Swr:
    """The real source, whose network is one function."""
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


def says(body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> Handler:
    return lambda _: httpx.Response(200, content=body, headers=headers)


def tags_of(store: Store, repository: Repository) -> dict[str, Tag]:
    return store.tags(repository)


def assert_a_sentence(error: RegistryError) -> None:
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
def test_a_difference_survives_being_written_down(old: dict[str, Tag], new: dict[str, Tag]) -> None:
    """Changes in any documented field, kept as JSON as the history does, still give the new."""
    kept = [
        msgspec.structs.replace(change, fields=json.loads(msgspec.json.encode(change.fields)))
        for change in diff(old, new)
    ]
    assert apply(old, kept) == new
    assert diff(new, apply(old, kept)) == []


@given(LISTINGS, LISTINGS)
def test_a_difference_and_its_opposite_cancel(old: dict[str, Tag], new: dict[str, Tag]) -> None:
    """There and back again is where one was, and as many changes either way."""
    there, back = diff(old, new), diff(new, old)
    assert apply(apply(old, there), back) == old
    assert [change.tag for change in there] == [change.tag for change in back]


@given(body=BODIES, headers=HEADERS)
def test_any_answer_is_a_listing_that_is_kept_or_an_error(
    recorded: tuple[Path, Store], body: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    """What can be decoded can be stored and read back equal; all else is one of our errors."""
    path, store = recorded
    repository = Repository("swr", f"team/any-{next(numbers)}")
    with closing(registry_of(says(body, headers))) as registry:
        try:
            listing = registry.list_tags(repository.name)
        except RegistryError as error:
            assert_a_sentence(error)
            return
        assert isinstance(listing, Listing)
        result = poll(Job(repository, registry, timedelta(minutes=5)), store)
    assert result.outcome == "ok"
    assert tags_of(store, repository) == listing.tags
    assert_views_answer(path, repository)


@given(first=GOOD_ROWS, second=GOOD_ROWS)
def test_two_odd_listings_are_kept_and_so_is_what_lies_between(
    recorded: tuple[Path, Store], first: list[dict[str, Any]], second: list[dict[str, Any]]
) -> None:
    """Mirror, history and views hold names and values as the registry sent them."""
    path, store = recorded
    repository = Repository("swr", f"team/two-{next(numbers)}")
    for rows in (first, second):
        body = json.dumps(rows).encode()
        with closing(registry_of(says(body))) as registry:
            job = Job(repository, registry, timedelta(minutes=5))
            assert poll(job, store, Options(accept_deletions=True)).outcome == "ok"
        kept = tags_of(store, repository)
        assert kept.keys() == {row["Tag"] for row in rows}
        for row in rows:
            tag = kept[row["Tag"]]
            assert tag.digest == (row.get("digest") or None)
            assert (tag.size, tag.registry_id) == (row.get("size"), row.get("id"))
            assert (tag.path, tag.is_trusted) == (row.get("path"), row.get("is_trusted"))
    assert replayed(store, path, repository) == tags_of(store, repository)
    assert_views_answer(path, repository)


def replayed(store: Store, path: Path, repository: Repository) -> dict[str, Tag]:
    """What the history alone says of a repository."""
    tags: dict[str, Tag] = {}
    with closing(connect_for_reading(path)) as db:
        for tag, kind, old, new, fields in db.execute(
            "SELECT tag, kind, old_digest, new_digest, fields FROM changes"
            " WHERE repository_id = ? ORDER BY id",
            (store.state(repository).id,),
        ):
            tags = apply(tags, [Change(tag, kind, old, new, json.loads(fields))])
    return tags


def assert_views_answer(path: Path, repository: Repository) -> None:
    """No view fails on what it finds in manifests and names."""
    with closing(connect_for_reading(path)) as db:
        for view in re.findall(r"CREATE VIEW (\w+)", schema.VIEWS):
            key = "digest" if view == "image_layers" else "index_digest"
            condition = (
                f"WHERE {key} IN (SELECT digest FROM current_tags WHERE repository = ?)"
                if view.startswith("image_")
                else "WHERE repository = ?"
            )
            db.execute(f"SELECT * FROM {view} {condition}", (repository.full_name,)).fetchall()


def test_the_history_of_all_that_is_whole(recorded: tuple[Path, Store]) -> None:
    """After every example of this module the chain verifies and the replay gives the mirror."""
    assert_history_is_whole(recorded[0])


@given(body=BODIES, status=st.integers(100, 599).filter(lambda s: s != 200), headers=HEADERS)
def test_any_refusal_is_one_sentence(
    body: bytes, status: int, headers: list[tuple[bytes, bytes]]
) -> None:
    """Whatever a refusal's body and headers hold, the error is a harmless sentence of one line."""
    answer = Answer("http://127.0.0.1/x", status, httpx.Headers(headers), body)
    error = refusal_error(answer, REFUSALS, (Secret(SECRET),))
    assert_a_sentence(error)
    assert error.status == status


@given(text=st.text(max_size=300), where=st.sampled_from(["errorCode", "errorMessage", "Location"]))
def test_a_secret_is_in_no_refusal(text: str, where: str) -> None:
    """Wherever a server repeats a secret, amid whatever it likes, the sentence does not."""
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
def test_any_answer_to_discovery_is_names_that_stay_in_their_place_or_an_error(
    first: bytes, later: bytes
) -> None:
    """What is found can be asked for below the list of its organization, and nowhere else."""
    bodies = iter([first])

    def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=next(bodies, later))

    with closing(registry_of(handler)) as registry:
        try:
            found = registry.list_repositories(["*"], shared=True)
        except RegistryError as error:
            assert_a_sentence(error)
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
def test_a_name_that_leads_elsewhere_is_no_repository(namespace: str, name: str) -> None:
    """A repository whose name would be another path fails discovery instead of being asked for."""
    body = json.dumps([{"namespace": namespace, "name": name}]).encode()
    with (
        closing(registry_of(says(body))) as registry,
        pytest.raises(RegistryError, match="a name that cannot be part of a path"),
    ):
        registry.list_repositories(["team/*"])

"""Google's list: the map in ``tags/list``, and what each fault of it leads to."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tagsync.database.store import Store
from tagsync.emulator.answers import json_answer
from tagsync.emulator.http import Answer, Request
from tagsync.emulator.oci import Google, ListFault, OciEmulator
from tagsync.errors import ResponseTooLarge
from tagsync.models import Repository
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tagsync.registries.oci.lists.google import LIMIT, GoogleList
from tests.support.clock import FakeClock
from tests.support.lists import REPOSITORY, Open, access_at, digests, fill

LIST = f"/v2/{REPOSITORY}/tags/list"


def test_idle_poll_costs_one_request_and_the_sample(listed: Open) -> None:
    """The one request for the names has the digests, too."""
    with OciEmulator(Google()) as emulator:
        fill(emulator, 500)
        registry = listed(emulator)
        registry.poll()
        again = registry.poll()
        assert (digests(again), again.source) == (emulator.tags(REPOSITORY), "google")
        assert [r.target for r in emulator.requests if r.method == "GET"] == [f"{LIST}?n=10000"]
        assert 5 <= len(emulator.heads()) < 20


def test_registry_without_the_map_has_no_list(listed: Open) -> None:
    """A registry whose token server has Google's path, but without the map, is not Google's."""

    class WithoutMap(Google):
        def respond(self, request: Request, contents: Any) -> Answer | None:
            return None

    with OciEmulator(WithoutMap()) as emulator:
        fill(emulator, 3)
        assert listed(emulator).poll().source == "head"


@pytest.mark.parametrize("host", ["gcr.io", "eu.gcr.io", "europe-west1-docker.pkg.dev"])
def test_hosts_of_google_are_known(host: str, clock: FakeClock) -> None:
    """Google's hosts need no request to be known."""
    found = GoogleList.detect(access_at(f"https://{host}", clock), REPOSITORY)
    assert isinstance(found, GoogleList)


@pytest.mark.parametrize("host", ["gcr.io.example.com", "docker.pkg.dev", "example.com"])
def test_other_hosts_get_no_request(host: str, clock: FakeClock) -> None:
    """A registry with another name and without Google's token server gets no request."""
    assert GoogleList.detect(access_at(f"https://{host}", clock), REPOSITORY) is None


def test_answer_that_may_be_cut_fails_the_poll(listed: Open) -> None:
    """From 10,000 tags on the answer may lack tags, so the poll fails and nothing is deleted."""
    with OciEmulator(Google(limit=10_000)) as emulator:
        fill(emulator, 10_000)
        registry = listed(emulator)
        with pytest.raises(ResponseTooLarge, match="10000"):
            registry.poll()


def test_tag_without_a_manifest_is_resolved_by_head(listed: Open) -> None:
    """A name that the map lacks is not believed to have no image."""
    with OciEmulator(Google()) as emulator:
        fill(emulator, 5)
        emulator.begin(ListFault.NULL_DIGEST)
        listing = listed(emulator).poll()
        assert digests(listing) == emulator.tags(REPOSITORY)
        assert {"v00000", "v00003"} <= set(emulator.heads())


def answering(change: Callable[[dict[str, Any]], dict[str, Any]], **headers: str) -> Google:
    """Return a Google whose answers with the map are changed, but not those for the names."""

    class Changed(Google):
        def respond(self, request: Request, contents: Any) -> Answer | None:
            answer = super().respond(request, contents)
            if answer is None or request.query.get("n") != str(LIMIT):
                return answer
            return json_answer(change(json.loads(answer.body)), headers)

    return Changed()


@pytest.mark.parametrize(
    ("change", "headers"),
    [
        (lambda page: page, {"Link": '</v2/x/tags/list?last=v00001>; rel="next"'}),
        (lambda page: {name: value for name, value in page.items() if name != "manifest"}, {}),
        (lambda page: page | {"name": "project/another"}, {}),
        (lambda page: page | {"errors": [{"code": "UNKNOWN"}]}, {}),
        (lambda page: page | {"manifest": []}, {}),
    ],
    ids=["link", "no map", "other name", "error", "other type"],
)
def test_answer_that_is_not_the_whole_list_is_not_used(
    listed: Open, change: Callable[[dict[str, Any]], dict[str, Any]], headers: dict[str, str]
) -> None:
    """The map of an answer that is cut, of another repository or faulty, has no say."""
    with OciEmulator(answering(change, **headers)) as emulator:
        fill(emulator, 5)
        listing = listed(emulator).poll()
        assert (digests(listing), listing.source) == (emulator.tags(REPOSITORY), "head")


@pytest.mark.parametrize("untagged", [0, LIMIT - 5])
def test_cut_answer_deletes_nothing(
    listed: Open, store: Store, clock: FakeClock, untagged: int
) -> None:
    """At the limit of tags or of manifests, the poll fails and the record stays."""

    def grow(page: dict[str, Any]) -> dict[str, Any]:
        page["manifest"] |= {f"sha256:{number:064x}": {"tag": []} for number in range(untagged)}
        return page | ({} if untagged else {"tags": [f"v{n:05}" for n in range(3, LIMIT + 3)]})

    cut = False
    vendor = answering(lambda page: grow(page) if cut else page)
    with OciEmulator(vendor) as emulator:
        fill(emulator, 5)
        job = Job(Repository("reg", REPOSITORY), listed(emulator).oci, timedelta(minutes=5))
        assert poll(job, store, clock=clock).outcome == "ok"
        cut = True
        found = poll(job, store, clock=clock)
        assert (found.outcome, found.reasons) == ("failed", ("too_large",))
        assert "10000" in str(found.detail)
        assert len(store.tags(job.repository)) == 5

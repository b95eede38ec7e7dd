"""Tags that are listed while the registry has no manifest for them, and what is recorded next."""

from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from typing import Any

import httpx
import pytest
import stamina

from tagsync.clock import timestamp
from tagsync.database.store import Store
from tagsync.models import Repository
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tests.support.clock import FakeClock
from tests.support.docker_registry import digest_of
from tests.support.oci import REPOSITORY, Fake, errors, image, registry_of
from tests.support.polls import counts

Query = Callable[..., list[tuple[Any, ...]]]


@pytest.mark.xfail(
    strict=True, reason="not_before is the last listing, even if it did not resolve the tag"
)
def test_change_after_an_unresolved_tag_happened_after_it_was_last_resolved(
    store: Store, clock: FakeClock, query: Query
) -> None:
    """A listing that cannot resolve a tag does not prove that the tag has its recorded digest.

    The tag moves unseen, and is listed while it is deleted. It left its recorded digest before
    that listing, so the deletion from that digest must have a window that begins earlier.
    """
    fake = Fake({"v1": image("one"), "v2": image("two")})
    with stamina.set_testing(True, attempts=1), closing(registry_of(fake, clock=clock)) as registry:
        job = Job(Repository("reg", REPOSITORY), registry, timedelta(minutes=5))
        assert counts(poll(job, store, clock=clock)) == ("ok", 2, 0, 0)
        resolved_at = timestamp(clock())
        clock.advance(minutes=2)
        fake.tags["v1"] = image("moved")
        clock.advance(minutes=2)
        path = f"/v2/{REPOSITORY}/manifests/v1"
        fake.overrides["HEAD", path] = httpx.Response(404)
        fake.overrides["GET", path] = httpx.Response(404, json=errors("MANIFEST_UNKNOWN"))
        assert counts(poll(job, store, clock=clock)) == ("ok", 0, 0, 0)
        clock.advance(minutes=1)
        del fake.tags["v1"]
        assert counts(poll(job, store, clock=clock)) == ("ok", 0, 0, 1)
    assert query("SELECT old_digest, not_before FROM changes WHERE kind = 'deleted'") == [
        (digest_of(image("one")), resolved_at)
    ]

"""A record with events, and a configuration with destinations."""

from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Final

from tagsync.clock import timestamp
from tagsync.database.outcomes import Failed
from tagsync.database.store import Store
from tagsync.errors import Unreachable
from tagsync.models import Image, Repository, Tag
from tagsync.polling.jobs import Job
from tests.support.clock import FakeClock
from tests.support.commands import configure
from tests.support.record import record
from tests.support.registries import INTERVAL, Scripted

API: Final = Repository("swr", "team-a/api")
WEB: Final = Repository("swr", "team-a/web")

FAILURE: Final = Unreachable(
    "https://swr.example.com could not be reached (timed out): check the network"
)

DESTINATIONS: Final = """
[[notify]]
name = "ops"
kind = "webhook"
url = "env:OPS_URL"
signing_key = "env:OPS_KEY"

[[notify]]
name = "page"
kind = "command"
argv = ["/usr/local/bin/page"]
repositories = ["swr/team-a/*"]
events = ["failed", "recovered"]
"""


def make_folder(folder: Path, destinations: str = DESTINATIONS) -> Path:
    """Write a configuration with destinations and a record of seven events. Return the folder.

    The events are: 1 and 2 baselined, 3 moved, 4 added, 5 failed, 6 recovered, 7 deleted.
    """
    path = configure(folder, "http://127.0.0.1:9", "team-a/api", "team-a/web")
    path.write_text(path.read_text() + destinations)
    clock = FakeClock()
    with Store.open(folder / "tagsync.db") as store:
        _poll(store, clock, API, latest="1", v1_0="1")
        _poll(store, clock, WEB, v2="w", preview="p")
        _poll(store, clock, API, latest="2", v1_0="1", v1_1="2")
        failed = Failed(FAILURE, timestamp(clock.now))
        store.record(WEB, failed, store.state(WEB), INTERVAL)
        clock.now += INTERVAL
        _poll(store, clock, WEB, v2="w")
    return folder


def _poll(store: Store, clock: FakeClock, repository: Repository, **tags: str) -> None:
    """Record a listing of tags whose digests are the hashes of some texts, and go on."""
    listed = {
        name.replace("_", "."): Tag(
            name.replace("_", "."), f"sha256:{sha256(text.encode()).hexdigest()}"
        )
        for name, text in tags.items()
    }
    images = {tag.digest: Image(tag.digest) for tag in listed.values() if tag.digest}
    record(store, Job(repository, Scripted(clock), INTERVAL), clock, listed, images)
    clock.now += timedelta(minutes=5)

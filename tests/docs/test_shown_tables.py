"""The tables that the page on output shows are those that the commands print."""

import re
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from tagsync.clock import timestamp
from tagsync.database.outcomes import Failed
from tagsync.database.store import Store
from tagsync.errors import Unreachable
from tagsync.models import Image, Repository, Tag
from tagsync.polling.jobs import Job
from tests.support.clock import FakeClock
from tests.support.commands import configure, tagsync
from tests.support.documents import fenced_blocks, section
from tests.support.record import record
from tests.support.registries import INTERVAL, Scripted

pytestmark = pytest.mark.processes

API, WEB = (Repository("swr", f"team-a/{name}") for name in ("api", "web"))
FAILURE = Unreachable("https://swr.example.com could not be reached (timed out): check the network")


def poll(store: Store, clock: FakeClock, repository: Repository, **tags: str) -> None:
    """Record a listing of tags whose digests are the hashes of some texts."""
    job = Job(repository, Scripted(clock), INTERVAL)
    listed = {
        name.replace("_", "."): Tag(
            name.replace("_", "."), f"sha256:{sha256(text.encode()).hexdigest()}", size=41_000_000
        )
        for name, text in tags.items()
    }
    images = {tag.digest: Image(tag.digest) for tag in listed.values() if tag.digest}
    record(store, job, clock, listed, images)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three hours of polls: a move, a deletion, failures, and a stop of half an hour."""
    folder = tmp_path_factory.mktemp("tables")
    configure(folder, "http://127.0.0.1:9", "team-a/api", "team-a/web")
    clock = FakeClock()
    with Store.open(folder / "tagsync.db") as store:
        for turn in range(30):
            moved = {"latest": "2", "v1_1": "2"} if turn >= 7 else {"latest": "1"}
            poll(store, clock, API, v1_0="1", **moved)
            if 10 <= turn < 16 or turn == 29:
                failed = Failed(FAILURE, timestamp(clock.now))
                store.record(WEB, failed, store.state(WEB), INTERVAL)
            else:
                poll(store, clock, WEB, v2="w", **({"preview": "p"} if turn < 20 else {}))
            clock.now += timedelta(minutes=5) + (turn == 24) * timedelta(minutes=25)
    return folder


def normalized(text: str) -> str:
    """Return a text in which ages, and the spaces after them, are the same in every run."""
    return re.sub(r"\d+ (s|min|h|d) ago", "AGE", " ".join(text.split()))


EXAMPLES = re.findall(
    r"^\$ tagsync (.*)\n((?:(?!\$ ).*\n)*)",
    "\n".join(fenced_blocks(section("docs/output.md", "Tables"), "console")),
    re.MULTILINE,
)


@pytest.mark.parametrize(("command", "shown"), EXAMPLES, ids=[command for command, _ in EXAMPLES])
def test_shown_tables_are_real(command: str, shown: str, folder: Path) -> None:
    """Each command of the page prints what is shown below it, at 80 columns."""
    arguments = [argument.strip("'") for argument in command.split()]
    finished = tagsync(*arguments, cwd=folder, COLUMNS="80")
    assert normalized(finished.stdout.strip()) == normalized(shown.strip())


def test_each_command_is_shown() -> None:
    """Each command that asks has an example."""
    assert {command.split()[0] for command, _ in EXAMPLES} == {
        *("status", "tags", "log", "diff", "find", "coverage")
    }

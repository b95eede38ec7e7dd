"""The walk from an alarm about an immutable tag to its acceptance, as the page shows it."""

import re
import shlex
from hashlib import sha256
from pathlib import Path

import pytest

from tagsync.database.store import Store
from tagsync.models import Repository, Tag
from tagsync.polling.jobs import Job
from tests.support.clock import FakeClock
from tests.support.commands import configure, tagsync
from tests.support.documents import fenced_blocks, section
from tests.support.immutable import add_violation
from tests.support.record import record
from tests.support.registries import INTERVAL, Scripted

pytestmark = pytest.mark.processes

API = Repository("swr", "team-a/api")
SHOWN = "\n".join(fenced_blocks(section("docs/audit.md", "Tags that must not move"), "console"))
STEPS = re.findall(r"^\$ (tagsync .*)\n((?:(?!\$ ).*\n?)*)", SHOWN, re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A record in which v1.4.1 is deleted, and v1.4.2 moves together with latest."""
    configure(tmp_path, "http://127.0.0.1:9", API.name)
    clock = FakeClock()
    listings = (
        {"latest": "2", "v1.4.1": "1", "v1.4.2": "2"},
        {"latest": "3", "v1.4.2": "3"},
    )
    with Store.open(tmp_path / "tagsync.db") as store:
        job = Job(API, Scripted(clock), INTERVAL)
        for listing in listings:
            tags = {
                name: Tag(name, f"sha256:{sha256(text.encode()).hexdigest()}")
                for name, text in listing.items()
            }
            record(store, job, clock, tags, {})
            clock.advance(minutes=5)
    digests = [f"sha256:{sha256(text.encode()).hexdigest()}" for text in "12"]
    add_violation(tmp_path / "tagsync.db", 5, "immutable_deleted", digests[0])
    add_violation(tmp_path / "tagsync.db", 6, "immutable_moved", digests[1])
    return tmp_path


def normalized(text: str) -> str:
    """Return a text in which spaces, ages, acceptances' times and users are always the same."""
    text = re.sub(r"\d+ d ago", "AGE", " ".join(text.split()))
    return re.sub(r"accepted [\d-]+ [\d:]+ by \w+ \(uid \d+\)", "accepted TIME by USER", text)


def test_the_steps_print_what_is_shown(folder: Path) -> None:
    """Each command of the walk prints what the page shows below it, at 80 columns."""
    assert [command.split()[1] for command, _ in STEPS] == ["status", "log", "accept", "log"]
    for command, shown in STEPS:
        finished = tagsync(*shlex.split(command)[1:], cwd=folder, COLUMNS="80")
        assert finished.returncode == 0, finished.stderr
        assert normalized(finished.stdout) == normalized(shown), finished.stdout

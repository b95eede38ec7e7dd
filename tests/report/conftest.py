"""Fixtures for reports: a record with a move, a gap, a deletion and hostile names."""

from datetime import timedelta
from pathlib import Path

import pytest

from tagsync.audit.queries import Audit
from tagsync.database.store import Store
from tagsync.errors import Unreachable
from tagsync.models import Listing, Tag
from tagsync.polling.jobs import Job, Options
from tagsync.polling.poll import poll
from tagsync.report.collect import LIMITS, Limits, ask, collect
from tagsync.report.content import Report, ReportProof
from tests.support.audit import at
from tests.support.clock import FakeClock
from tests.support.registries import INTERVAL, REPOSITORY, Scripted
from tests.support.reports import HOSTILE, ONE, THREE, TWO, ReportOn


@pytest.fixture(scope="session")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of three hours of polls, every five minutes, which no test changes.

    The tag ``latest`` moves from `ONE` to `TWO` between minute 10 and 15, and back between 60 and
    65. ``old`` is deleted, and ``new`` added, between 60 and 65. In the gap, from minute 25 to 55,
    the polls fail.
    """
    path, clock = tmp_path_factory.mktemp("record") / "tagsync.db", FakeClock()
    scripted = Scripted(clock)
    job = Job(REPOSITORY, scripted, INTERVAL)
    before = {"latest": ONE, "old": THREE, **dict.fromkeys(HOSTILE, ONE)}
    after = {"latest": ONE, "new": TWO, **dict.fromkeys(HOSTILE, ONE)}
    with Store.open(path) as store:
        for minute in range(0, 185, 5):
            clock.now = FakeClock().now + timedelta(minutes=minute)
            if 25 < minute < 55:
                scripted.script.append(Unreachable("no connection to <b>registry</b>"))
            else:
                tags = after if minute >= 65 else before | ({"latest": TWO} if minute >= 15 else {})
                images = {each.digest: each for each in tags.values()}
                listed = {name: Tag(name, each.digest) for name, each in tags.items()}
                scripted.script.append(Listing(listed, images, at(minute), at(minute), None))
            poll(job, store, Options(accept_deletions=True), clock)
    return path


@pytest.fixture
def report_on(record: Path) -> ReportOn:
    """Return a function that reports on the record, a day after it began."""

    def run(
        pattern: str = "swr/team/api",
        start: float | None = None,
        end: float | None = None,
        limits: Limits = LIMITS,
        proof: ReportProof | None = None,
        made_at: float = 24 * 60,
    ) -> Report:
        moments = (None if minute is None else at(minute) for minute in (start, end))
        now = FakeClock().now + timedelta(minutes=made_at)
        with Audit.open(record) as audit:
            return collect(audit, ask(pattern, *moments), now, proof, limits)

    return run

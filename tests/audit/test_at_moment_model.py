"""Queries about the past, compared with a model that remembers every listing."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import structlog
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tagsync.audit.queries import Audit
from tagsync.clock import timestamp
from tagsync.database.store import Store
from tagsync.errors import Unreachable
from tagsync.models import Image, Listing, Tag
from tagsync.polling.jobs import Job, Options
from tagsync.polling.poll import poll
from tests.support.audit import tag_states
from tests.support.clock import FakeClock
from tests.support.registries import INTERVAL, REPOSITORY, Scripted


class Killed(BaseException):
    """The end of the process, raised as an exception."""


class KillingImages(Mapping[str, Image]):
    """Images that raise Killed when they are read, inside the transaction."""

    def __getitem__(self, key: str) -> Image:
        raise Killed

    def __iter__(self) -> Iterator[str]:
        raise Killed

    def __len__(self) -> int:
        raise Killed


class RecordedListing:
    """A complete listing that was recorded: its times and its tags."""

    def __init__(self, started: str, finished: str, tags: dict[str, str]) -> None:
        self.started, self.finished, self.tags = started, finished, dict(tags)


NAMES = st.sampled_from("abcd")


class HistoryModel(RuleBasedStateMachine):
    """A registry, a store that polls it, and a model that remembers every listing."""

    @initialize()
    def begin(self) -> None:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
        self.folder = TemporaryDirectory()
        self.database = Path(self.folder.name) / "tagsync.db"
        self.store = Store.open(self.database)
        self.clock = FakeClock()
        self.registry = Scripted(self.clock)
        self.job = Job(REPOSITORY, self.registry, INTERVAL)
        self.tags: dict[str, str] = {}
        self.listings: list[RecordedListing] = []
        self.runs: list[tuple[str, str]] = []
        self.is_covered = False
        self.alternates = False
        self.moments = {timestamp(self.clock.now - timedelta(days=1))}

    @rule(name=NAMES, digest=st.sampled_from("xyz"))
    def push_or_move(self, name: str, digest: str) -> None:
        self.tags[name] = f"sha256:{digest}"
        self.pass_time(seconds=1)

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        self.tags.pop(name, None)
        self.pass_time(seconds=1)

    @rule(minutes=st.sampled_from([1, 4, 9, 30]))
    def wait(self, minutes: int) -> None:
        self.pass_time(minutes=minutes)

    @rule(seconds=st.sampled_from([0, 20]), accept=st.booleans())
    def poll_at(self, seconds: int, accept: bool) -> None:
        started = self.script_listing(seconds)
        result = poll(self.job, self.store, Options(accept_deletions=accept), self.clock)
        if result.outcome == "ok":
            self.remember(started)
        else:
            assert result.outcome == "held"
            self.is_covered = False
        self.pass_time(seconds=1)

    @rule()
    def fail(self) -> None:
        self.registry.script.append(Unreachable("no connection"))
        assert poll(self.job, self.store, clock=self.clock).outcome == "failed"
        self.is_covered = False
        self.pass_time(seconds=1)

    @rule()
    def kill_before_the_commit(self) -> None:
        self.script_listing(0, images=KillingImages())
        with pytest.raises(Killed):
            poll(self.job, self.store, Options(accept_deletions=True), self.clock)
        self.restart()

    @rule()
    def kill_after_the_commit(self) -> None:
        started = self.script_listing(5)

        def kill(*_: Any) -> Any:
            raise Killed

        # A poll writes its first log line after its commit.
        structlog.configure(
            processors=[kill],
            wrapper_class=structlog.make_filtering_bound_logger("debug"),
            cache_logger_on_first_use=False,
        )
        try:
            with pytest.raises(Killed):
                poll(self.job, self.store, Options(accept_deletions=True), self.clock)
        finally:
            structlog.reset_defaults()
        self.remember(started)
        self.restart()

    def script_listing(self, seconds: int, images: Mapping[str, Image] | None = None) -> str:
        """Script a listing that takes this many seconds; return its start."""
        started = timestamp(self.clock.now)
        self.pass_time(seconds=seconds)
        tags = {name: Tag(name, digest) for name, digest in self.tags.items()}
        found = {digest: Image(digest) for digest in self.tags.values()}
        finished = timestamp(self.clock.now)
        self.registry.script.append(
            Listing(tags, found if images is None else images, started, finished, fingerprint=None)
        )
        return started

    def remember(self, started: str) -> None:
        now = timestamp(self.clock.now)
        self.listings.append(RecordedListing(started, now, self.tags))
        # An observation with another reason is another run.
        alternates = self.store.state(REPOSITORY).alternating
        is_covered = self.is_covered and alternates == self.alternates
        self.alternates = alternates
        last = self.runs[-1] if self.runs and is_covered else None
        if last and self.clock.now - FakeClock().now.fromisoformat(last[1]) <= 2 * INTERVAL:
            self.runs[-1] = (last[0], now)
        else:
            self.runs.append((now, now))
        self.is_covered = True

    def restart(self) -> None:
        self.store.close()
        self.store = Store.open(self.database)
        self.registry.script.clear()
        self.pass_time(seconds=1)

    def pass_time(self, **by: float) -> None:
        before = self.clock.now
        self.clock.advance(**by)
        between = before + (self.clock.now - before) / 2
        self.moments |= {timestamp(moment) for moment in (before, between, self.clock.now)}

    def expected(self, moment: str) -> set[tuple[Any, ...]]:
        """Return the rows that the model expects at a moment."""
        past = [
            number for number, listing in enumerate(self.listings) if listing.finished <= moment
        ]
        if not past:
            return {(None, None, None, "unknown")}
        is_covered = any(first <= moment <= last for first, last in self.runs)
        possible = [self.listings[past[-1]]]
        for before, after in pairwise(self.listings[past[-1] :]):
            if before.started < moment:
                possible.append(after)
        rows: set[tuple[Any, ...]] = set()
        for name in "abcd":
            digests = [listing.tags.get(name) for listing in possible]
            if any(digests):
                level = "certain" if len(set(digests)) == 1 else "uncertain"
                certainty = level if is_covered else "not observed"
                rows |= {(name, digest, digest is not None, certainty) for digest in digests}
        return rows or (set() if is_covered else {(None, None, None, "not observed")})

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        try:
            self.check()
        finally:
            self.store.close()
            self.folder.cleanup()
            structlog.reset_defaults()

    def check(self) -> None:
        if self.store.state(REPOSITORY).id is None:
            return
        with Audit.open(self.database) as audit:
            answers: dict[str, set[tuple[Any, ...]]] = {}
            for moment in sorted(self.moments):
                answers[moment] = {row[:4] for row in tag_states(list(audit.tags_at((), moment)))}
                assert answers[moment] == self.expected(moment), moment
            self.check_differences(audit, answers)
            assert {row["result"] for row in audit.verify()} == {"ok"}

    def check_differences(self, audit: Audit, answers: dict[str, set[tuple[Any, ...]]]) -> None:
        """Check that `diff` agrees with the states at certain moments."""
        certain = {
            moment: {row[0]: row[1] for row in rows}
            for moment, rows in answers.items()
            if all(row[3] == "certain" for row in rows)
        }
        for start, end in pairwise(sorted(certain)):
            old, new = certain[start], certain[end]
            expected = {
                (name, old.get(name), new.get(name))
                for name in old.keys() | new.keys()
                if old.get(name) != new.get(name)
            }
            rows = list(audit.diff((), start, end))
            assert {(r["tag"], r["old_digest"], r["new_digest"]) for r in rows} == expected
            assert {row["certainty"] for row in rows} <= {"certain"}


TestHistoryModel = HistoryModel.TestCase


TestHistoryModel.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)

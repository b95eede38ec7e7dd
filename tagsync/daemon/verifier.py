"""Verify the database at a quiet time, and record the result.

A verification is due one interval after the last recorded one, so that a restart does not bring
another one. It waits until no poll is under way or due, but not for longer than a quarter of the
interval.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import structlog

from tagsync.clock import Clock, parse_timestamp, timestamp
from tagsync.daemon.verify_runner import Outcome, Runner
from tagsync.database.hash_chain import GENESIS, Heads
from tagsync.database.store import Store
from tagsync.database.verifications import Verification
from tagsync.errors import DamagedRecord

IsQuiet = Callable[[datetime], bool]
"""A function that returns whether no poll is under way, or due until a time."""

_EXPECTED: Final = timedelta(seconds=10)
"""How long the first verification is expected to take."""

_GRACE: Final = 4
"""The part of the interval for which a due verification waits for a quiet time: a quarter."""

_TIMEOUT: Final = timedelta(hours=1)
"""How long a verification may take. The WAL of the database grows while it runs."""

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger()


def is_due(
    now: datetime, since: datetime, interval: timedelta, expected: timedelta, is_quiet: IsQuiet
) -> bool:
    """Return whether to verify now.

    Args:
        now: The current time.
        since: When the last verification ended.
        interval: The time between two verifications.
        expected: How long the verification will probably take.
        is_quiet: Called only if a verification is due.
    """
    # A time in the future shows that the clock was set back.
    late = now - since - interval if since <= now else interval
    if late < timedelta():
        return False
    return late >= interval / _GRACE or is_quiet(now + expected)


class Verifier:
    """Knows the last verification, and runs the next one when it is due."""

    def __init__(
        self, store: Store, runner: Runner, clock: Clock, monotonic: Callable[[], float]
    ) -> None:
        """Create a verifier for the database of a store.

        Args:
            store: Records the results.
            runner: Runs the verifications.
            clock: Returns the current time.
            monotonic: Returns seconds that a change of the system clock does not affect.
        """
        self._store = store
        self._runner = runner
        self._clock = clock
        self._monotonic = monotonic
        self._last: Verification | None = None
        self._since: datetime | None = None

    @property
    def last(self) -> Verification | None:
        """The last verification. None if there was none."""
        return self._last

    def load(self) -> None:
        """Read the last verification. If its row is damaged, there was none.

        Raises:
            StoreError: If the database cannot be read.
        """
        try:
            self._last = self._store.last_verification()
        except DamagedRecord:
            # The next verification finds and reports the damage.
            self._last = None
        self._since = parse_timestamp(self._last.at) if self._last else None

    def run_if_due(self, interval: timedelta, is_quiet: IsQuiet) -> Verification | None:
        """Verify if it is time, and log and record the result.

        Args:
            interval: The time between two verifications. Zero means never.
            is_quiet: See `is_due`.

        Returns:
            None if it is not time, or if the verification was interrupted.

        Raises:
            StoreError: If the database cannot be read or written.
        """
        since = self._since or self._first_listing_at()
        if not interval or since is None:
            return None
        self._since = since
        expected = timedelta(seconds=self._last.seconds) if self._last else _EXPECTED
        if not is_due(self._clock(), since, interval, expected, is_quiet):
            return None
        return self._verify()

    def stop(self) -> None:
        """Interrupt a verification that runs, and begin no other one."""
        self._runner.stop()

    def _first_listing_at(self) -> datetime | None:
        """Return when the record began. None if it has no listing yet."""
        first = self._store.first_listing_at()
        return None if first is None else parse_timestamp(first)

    def _verify(self) -> Verification | None:
        # The process begins later, so it sees these heads.
        heads = self._store.heads()
        before = self._last.heads if self._last else None
        began = self._monotonic()
        outcome = self._runner.run(_hashes(heads, before), _TIMEOUT.total_seconds())
        if outcome is None:
            return None
        seconds = round(self._monotonic() - began, 3)
        found = _verification(outcome, timestamp(self._clock()), seconds, heads, before)
        # Also if it cannot be recorded: trying again at once would only load the machine.
        self._last, self._since = found, parse_timestamp(found.at)
        _log(found)
        self._store.record_verification(found)
        return found


def _hashes(*heads: Heads | None) -> set[str]:
    """Return the hashes of heads, without those of chains that had no link yet."""
    known = [each for each in heads if each is not None]
    return {head for each in known for head in (each.changes.hash, each.observations.hash)} - {
        GENESIS
    }


def _verification(
    outcome: Outcome, at: str, seconds: float, heads: Heads, before: Heads | None
) -> Verification:
    """Return the row of a verification.

    Args:
        outcome: Its outcome.
        at: When it ended.
        seconds: How long it took.
        heads: The heads when it began, which count if it found no fault.
        before: The heads of the row before, which stay in force otherwise. None without a row.
    """
    result, detail = outcome
    row = Verification(at, result, seconds, detail)
    covered = heads if result == "ok" else before
    if covered is None:
        return row
    changes, observations = covered.changes, covered.observations
    return Verification(
        *(at, result, seconds, detail),
        *(changes.change_id, changes.hash, observations.ended, observations.hash),
    )


def _log(found: Verification) -> None:
    write = log.info if found.result == "ok" else log.error
    write(
        "verify.finished",
        result=found.result,
        seconds=found.seconds,
        detail=found.detail,
        **found.heads.log_fields(),
    )

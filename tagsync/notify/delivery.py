"""Deliver the events of the outbox to one destination: at least once, and in order.

The ids of a batch are recorded before it is first sent, and the cursor moves only after the
receiver has accepted. A kill at any instant therefore loses nothing; what may have arrived is sent
again with the same ids. No lock of the database is held while a message is sent.
"""

import time
from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Final

import structlog

from tagsync.clock import Clock, parse_timestamp, timestamp, utc_now
from tagsync.database.outbox import Destination, Outbox
from tagsync.errors import DamagedRecord, NotDelivered
from tagsync.notify.batches import MOST_IN_FLOOD, Waiting, build_message, waiting_events
from tagsync.notify.lease import Lease
from tagsync.notify.selection import Filter
from tagsync.notify.sender import MOST_SECONDS, Sender
from tagsync.notify.targets import MAX_BATCH_SIZE, Rule
from tagsync.schedule import backoff

FIRST_BACKOFF: Final = timedelta(seconds=1)
LONGEST_BACKOFF: Final = timedelta(minutes=10)
"""The delay after the first failure doubles with each further one, up to the longest. The real
delay is random, between zero and this."""

LONGEST_RETRY_AFTER: Final = timedelta(hours=1)
"""A receiver cannot ask for a longer delay."""

POLL_INTERVAL: Final = 2.0
"""Seconds after which to look for new events again. Any process may have recorded some."""

_LOGGED_FAILURES: Final = frozenset({1, 10})
_LOGGED_EVERY: Final = 100
"""Which consecutive failures are logged: the first, the tenth, and each hundredth."""

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger()


class Delivery:
    """Sends to one destination, from one thread."""

    def __init__(
        self,
        outbox: Outbox,
        rule: Rule,
        sender: Sender,
        *,
        at_once: bool = False,
        clock: Clock = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
        random: Random | None = None,
        renewed_every: float = 20.0,
    ) -> None:
        """Prepare the delivery.

        Args:
            outbox: The events and the destinations.
            rule: The destination.
            sender: Sends its messages.
            at_once: Whether not to wait for further events, because this process ends soon.
            clock: Returns the current time.
            monotonic: Returns seconds that a change of the system clock does not affect.
            random: Random numbers for the backoff.
            renewed_every: Seconds between two renewals of the lease.
        """
        self._outbox: Final = outbox
        self._rule: Final = rule
        self._sender: Final = sender
        self._filter: Final = Filter(rule)
        self._at_once: Final = at_once
        self._batch: Final = timedelta(0) if at_once else rule.batch
        self._limit: Final = MOST_IN_FLOOD if sender.sums_up else rule.batch_size
        self._clock: Final = clock
        self._monotonic: Final = monotonic
        self._random: Final = random or Random()  # noqa: S311  a backoff may be predictable
        self._lease: Final = Lease(outbox, rule.name, clock, monotonic, renewed_every)
        self._stopped = False
        # A batch that was accepted, but could not be recorded as such. It is not sent again.
        self._unrecorded: tuple[int, ...] = ()
        self._first_seen: tuple[int, float] | None = None

    def stop(self) -> None:
        """Begin no further message, and end the one that is being sent, as far as possible.

        The lease is given up in any case, so that the next process need not wait for it. If the
        receiver accepts the message after that, the next process sends it again.
        """
        self._stopped = True
        self._sender.stop()

    def release(self) -> None:
        """Give up the lease; see `stop`."""
        self._lease.release()

    def deliver(self, seconds_left: Callable[[], float] = lambda: float("inf")) -> float | None:
        """Send the messages that are due.

        Args:
            seconds_left: Returns how long this may go on. No message is begun with less than a
                second, and none takes longer.

        Returns:
            Seconds until another call may find something to do. None if no event waits.

        Raises:
            StoreError: If the database failed. A message whose acceptance could not be recorded
                may be sent again.
        """
        pause = self._pause(self._read())
        if pause is None or pause > 0:
            return pause
        if not self._lease.acquire():
            # The process that has it sends all. This one need not wait for that if it ends soon.
            return None if self._at_once else POLL_INTERVAL
        try:
            while pause == 0 and seconds_left() >= 1 and not self._stopped:
                pause = self._deliver_one(min(MOST_SECONDS, seconds_left()))
        finally:
            self._lease.release()
        return pause

    def _read(self) -> Destination:
        destination = self._outbox.destination(self._rule.name)
        if destination is None:
            self._outbox.add(self._rule.name)
            destination = self._outbox.destination(self._rule.name)
        assert destination is not None, "destinations are never deleted"  # noqa: S101  tells the type checker
        return destination

    def _pause(self, destination: Destination) -> float | None:
        """Return the seconds until the destination may be sent something. None if nothing waits."""
        if destination.batch is None and self._outbox.newest_event() <= destination.cursor:
            return None
        if destination.retry_at is None:
            return 0
        pause = parse_timestamp(destination.retry_at) - self._clock()
        # A longer one means that the clock was set back after the failure.
        return max(0.0, pause.total_seconds()) if pause <= LONGEST_RETRY_AFTER else 0

    def _deliver_one(self, seconds: float) -> float | None:
        """Send one message, with the lease. Return as `deliver`; 0 to go on at once."""
        if not self._lease.keep():
            return POLL_INTERVAL
        destination = self._read()
        try:
            ids = self._pending_ids(destination)
            if not ids:
                waiting = self._next_events(destination)
                if not waiting.keys:
                    return None
                if pause := self._pause_for_more(waiting):
                    return pause
                ids = waiting.ids
                self._unrecorded = ()
                if not self._outbox.begin(self._rule.name, self._lease.holder, ids):
                    return POLL_INTERVAL
            if ids != self._unrecorded:
                self._send(destination, ids, seconds)
        except (NotDelivered, DamagedRecord) as error:
            return self._refuse(destination, error)
        return self._accept(ids)

    def _next_events(self, destination: Destination) -> Waiting:
        """Return the events for the next message. If there are none, pass over the others."""
        waiting = waiting_events(self._outbox, self._filter, destination.cursor, self._limit)
        if not waiting.keys and waiting.through > destination.cursor:
            self._outbox.skip(self._rule.name, self._lease.holder, waiting.through)
        return waiting

    def _pending_ids(self, destination: Destination) -> tuple[int, ...]:
        """Return the ids of a batch that was begun earlier. Empty if there is none."""
        ids = destination.batch_ids
        if self._sender.sums_up or len(ids) <= MAX_BATCH_SIZE:
            return ids
        # The kind of the destination has changed. Its new receiver was never sent the flood.
        return ()

    def _pause_for_more(self, waiting: Waiting) -> float:
        """Return how long to wait for more events. 0 if they are due."""
        first = waiting.keys[0]
        if not self._batch or len(waiting.keys) >= self._rule.batch_size:
            return 0
        now = self._monotonic()
        if self._first_seen is None or self._first_seen[0] != first.id:
            self._first_seen = first.id, now
        # By the clock the wait goes on over a restart, and by the other one over a step back.
        by_clock = parse_timestamp(first.at) + self._batch - self._clock()
        by_monotonic = self._first_seen[1] + self._batch.total_seconds() - now
        return max(0.0, min(by_clock.total_seconds(), by_monotonic))

    def _send(self, destination: Destination, ids: tuple[int, ...], seconds: float) -> None:
        """Send a batch that was begun, and log that it was accepted.

        Raises:
            NotDelivered: If the receiver has not accepted it.
            StoreError: If the events cannot be read, or are damaged.
        """
        number = self._outbox.database_id()
        sequence = destination.sequence + 1
        message = build_message(self._outbox, self._rule, number, sequence, ids)
        with self._lease.renewed():
            self._outbox.flush()
            answer = self._sender.send(message, seconds)
        if destination.failures:
            log.info(
                "notify.recovered",
                destination=self._rule.name,
                failures=destination.failures,
                failing_since=destination.failing_since,
            )
        log.info(
            "notify.sent",
            destination=self._rule.name,
            message=message.id,
            events=message.total,
            sequence=sequence,
            answer=answer,
        )

    def _accept(self, ids: tuple[int, ...]) -> float:
        """Record that a batch was accepted. Return as `deliver`."""
        self._unrecorded = ids
        # For people a flood is one message.
        count = 1 if self._sender.sums_up else len(ids)
        now = timestamp(self._clock())
        recorded = self._outbox.accept(self._rule.name, self._lease.holder, ids[-1], count, now)
        self._unrecorded = ()
        return 0 if recorded else POLL_INTERVAL

    def _refuse(self, destination: Destination, error: NotDelivered | DamagedRecord) -> float:
        """Record a failure. Return the seconds until the next attempt."""
        if self._stopped:
            return POLL_INTERVAL
        failures = destination.failures + 1
        longest = backoff(failures, FIRST_BACKOFF, LONGEST_BACKOFF).total_seconds()
        pause = self._random.uniform(0, longest)
        if isinstance(error, NotDelivered) and error.retry_after is not None:
            wished = min(error.retry_after, LONGEST_RETRY_AFTER.total_seconds())
            pause = max(pause, wished)
        now = self._clock()
        if failures in _LOGGED_FAILURES or failures % _LOGGED_EVERY == 0:
            log.warning(
                "notify.failed",
                destination=self._rule.name,
                error=str(error),
                failures=failures,
                next_in=round(pause, 1),
            )
        self._outbox.refuse(
            self._rule.name,
            self._lease.holder,
            str(error),
            timestamp(now),
            timestamp(now + timedelta(seconds=pause)),
        )
        return max(pause, 0.001)

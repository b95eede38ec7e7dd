"""Threads that deliver to all destinations, one for each, so that none waits for another."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from random import Random
from threading import Event, Thread
from typing import Final

import structlog

from tagsync.clock import Clock, utc_now
from tagsync.database.outbox import Outbox
from tagsync.errors import DamagedRecord, ReplacedDatabase, StoreError
from tagsync.escaping import truncate
from tagsync.notify.delivery import POLL_INTERVAL, Delivery
from tagsync.notify.sender import Sender
from tagsync.notify.senders import open_sender
from tagsync.notify.targets import Rule

SYNC_SECONDS: Final = 10.0
"""How long `sync` gives each destination after its pass."""

_MARGIN: Final = 0.5
"""Seconds of these in which the result of the last message is recorded."""

_LONGEST_PAUSE: Final = 60.0
"""Maximum time in seconds after which a worker that backs off looks again."""

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger()


class _Worker:
    """A thread that delivers to one destination until it is stopped."""

    def __init__(self, delivery: Delivery, sender: Sender, rule: Rule, interval: float) -> None:
        self.rule: Final = rule
        self._delivery: Final = delivery
        self._sender: Final = sender
        self._interval: Final = interval
        self._stopping: Final = Event()
        self._crash: str | None = None
        self._thread: Final = Thread(target=self._run, name=f"notify {rule.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end."""
        self._stopping.set()
        self._delivery.stop()

    @property
    def crash(self) -> str | None:
        """The last error that is a bug. None if there was none since the last success."""
        return self._crash

    def join(self, seconds: float) -> bool:
        """Wait for the end of the thread, and return whether it has ended.

        Its lease is given up in any case.
        """
        self._thread.join(seconds)
        ended = not self._thread.is_alive()
        if not ended:
            self._delivery.release()
        return ended

    def _run(self) -> None:
        failures = 0
        pause: float | None = 0.0
        while not self._stopping.wait(self._interval if pause is None else pause):
            try:
                pause = self._delivery.deliver()
            except ReplacedDatabase:
                break  # the daemon reports it, and sends nothing more
            except StoreError as error:
                failures += 1
                pause = min(self._interval * 2 ** min(failures, 10), _LONGEST_PAUSE)
                if failures == 1 and not self._stopping.is_set():
                    log.error("notify.failed", destination=self.rule.name, error=str(error))
            except Exception as error:
                # If the thread ended, nothing would ever be sent again, without any sign of it.
                pause = _LONGEST_PAUSE
                if not self._stopping.is_set():
                    self._crash = f"{type(error).__name__}: {truncate(str(error))}"
                    log.error("notify.crashed", destination=self.rule.name, exc_info=error)
            else:
                failures = 0
                self._crash = None
                pause = None if pause is None else min(pause, _LONGEST_PAUSE)
        self._sender.close()


class Workers:
    """The workers of the daemon."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        interval: float = POLL_INTERVAL,
        clock: Clock = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
        random: Random | None = None,
    ) -> None:
        """Start no worker yet.

        Args:
            outbox: The events and the destinations.
            interval: Seconds after which each worker looks for new events again.
            clock: Returns the current time.
            monotonic: Returns seconds that a change of the system clock does not affect.
            random: Random numbers for the backoff.
        """
        self._outbox: Final = outbox
        self._interval: Final = interval
        self._clock: Final = clock
        self._monotonic: Final = monotonic
        self._random: Final = random
        self._workers: dict[str, _Worker] = {}

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules of the workers."""
        return tuple(worker.rule for worker in self._workers.values())

    def apply(self, rules: Sequence[Rule]) -> None:
        """Stop the workers of rules that are gone or differ, and start those of new rules.

        Raises:
            ConfigError: If a rule is wrong. All workers then go on as before.
            StoreError: If a destination could not be added. All workers then go on as before.
        """
        new = [rule for rule in rules if rule not in self.rules]
        started = self._open(new)
        kept = {rule.name for rule in rules} - started.keys()
        old = [worker for name, worker in self._workers.items() if name not in kept]
        for worker in old:
            worker.stop()
        workers = {**self._workers, **started}
        self._workers = {rule.name: workers[rule.name] for rule in rules}
        for worker in started.values():
            worker.start()

    def problems(self) -> list[str]:
        """Return one sentence for each worker that a bug keeps from sending."""
        return [
            f"the notifications of {name} failed by a bug of tagsync ({worker.crash}): see"
            " notify.crashed in the log"
            for name, worker in self._workers.items()
            if worker.crash is not None
        ]

    def stop(self) -> None:
        """Ask all workers to end. Programs that run are ended."""
        for worker in self._workers.values():
            worker.stop()

    def join(self, seconds: float) -> bool:
        """Wait for the end of all workers after `stop`.

        Args:
            seconds: Maximum time to wait for messages that are being sent.

        Returns:
            Whether all workers have ended.
        """
        end = self._monotonic() + seconds
        ended = [
            worker.join(max(0.0, end - self._monotonic())) for worker in self._workers.values()
        ]
        return all(ended)

    def _open(self, rules: Sequence[Rule]) -> Mapping[str, _Worker]:
        with ExitStack() as stack:
            opened = {}
            for rule in rules:
                sender = open_sender(rule)
                stack.callback(sender.close)
                delivery = Delivery(
                    self._outbox,
                    rule,
                    sender,
                    clock=self._clock,
                    monotonic=self._monotonic,
                    random=self._random,
                )
                opened[rule.name] = _Worker(delivery, sender, rule, self._interval)
            add_destinations(self._outbox, rules)
            stack.pop_all()
        return opened


def add_destinations(outbox: Outbox, rules: Sequence[Rule]) -> None:
    """Add the destinations that are new. They get the events of the future.

    A destination with a damaged row is logged, and does not keep the others from being added.

    Raises:
        StoreError: If the database could not be read or written.
    """
    for rule in rules:
        try:
            if outbox.destination(rule.name) is None:
                outbox.add(rule.name)
        except DamagedRecord as error:
            log.error("notify.failed", destination=rule.name, error=str(error))


def deliver_within(
    outbox: Outbox,
    rules: Sequence[Rule],
    seconds: float = SYNC_SECONDS,
    *,
    clock: Clock = utc_now,
    monotonic: Callable[[], float] = time.monotonic,
) -> None:
    """Deliver to all destinations at once for a limited time. The rest waits for a later process.

    Args:
        outbox: The events and the destinations.
        rules: The destinations.
        seconds: Maximum time.
        clock: Returns the current time.
        monotonic: Returns seconds that a change of the system clock does not affect.

    Raises:
        ConfigError: If a rule is wrong.
    """
    end = monotonic() + seconds
    with ExitStack() as stack:
        threads: list[tuple[Thread, Delivery]] = []
        for rule in rules:
            sender = open_sender(rule)
            stack.callback(sender.close)
            delivery = Delivery(
                outbox, rule, sender, at_once=True, clock=clock, monotonic=monotonic
            )
            arguments = (delivery, rule, lambda: end - _MARGIN - monotonic())
            thread = Thread(target=_deliver_until, args=arguments, daemon=True)
            thread.start()
            threads.append((thread, delivery))
        for thread, _ in threads:
            thread.join(max(0.0, end - monotonic()))
        for thread, delivery in threads:
            if thread.is_alive():
                delivery.stop()
                thread.join(1)
                delivery.release()


def _deliver_until(delivery: Delivery, rule: Rule, seconds_left: Callable[[], float]) -> None:
    """Deliver until nothing waits any more, or the time is over."""
    try:
        while (pause := delivery.deliver(seconds_left)) is not None and pause < seconds_left():
            time.sleep(pause)
            if seconds_left() < 1:
                return
    except StoreError as error:
        log.error("notify.failed", destination=rule.name, error=str(error))
    except Exception as error:
        # The polls are recorded, so the pass has not failed.
        log.error("notify.crashed", destination=rule.name, exc_info=error)

"""Workers: no destination waits for another, and a stop is quick."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Event
from threading import enumerate as enumerate_threads
from time import monotonic

import pytest
import structlog.testing

from tagsync.clock import timestamp, utc_now
from tagsync.database.outbox import Destination, Outbox
from tagsync.errors import ConfigError
from tagsync.notify.lease import Lease, leased
from tagsync.notify.status import failing_for_long, statuses
from tagsync.notify.targets import Rule, WebhookTarget
from tagsync.notify.workers import Workers, add_destinations, deliver_within
from tagsync.secrets import Secret
from tests.support.clock import FakeClock
from tests.support.events import add_moves, add_stale, destination, outbox_of
from tests.support.receiver import Answer, Receiver, receiving
from tests.support.waiting import eventually


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tagsync.db"


@pytest.fixture
def outbox(path: Path) -> Iterator[Outbox]:
    with outbox_of(path) as outbox:
        yield outbox


def rule(name: str, receiver: Receiver, **options: object) -> Rule:
    return Rule(name, WebhookTarget(Secret(receiver.url)), **options)  # type: ignore[arg-type]


@contextmanager
def working(outbox: Outbox, *rules: Rule) -> Iterator[Workers]:
    workers = Workers(outbox, interval=0.01)
    workers.apply(rules)
    try:
        yield workers
    finally:
        workers.stop()
        workers.join(10)


def named(name: str) -> list[int | None]:
    """The threads of a name."""
    return [thread.ident for thread in enumerate_threads() if thread.name == name]


def test_a_dead_destination_delays_no_other(outbox: Outbox, path: Path) -> None:
    """Each destination gets its messages, whatever happens to the others."""
    with receiving(Answer(500)) as dead, receiving() as alive:
        with working(outbox, rule("dead", dead), rule("alive", alive)):
            for count in (1, 2, 3):
                add_moves(path, 1)
                alive.wait_for(count)
            # A failure that comes after the stop is not recorded.
            eventually(lambda: destination(outbox, "dead").failures >= 1)
        assert alive.ids == ["1", "2", "3"]
        assert destination(outbox, "dead").cursor == 0


def test_everything_arrives_after_a_recovery(outbox: Outbox, path: Path) -> None:
    """What waited for a dead receiver arrives in batches once it answers again."""
    with receiving(Answer(500), Answer()) as receiver:
        with working(outbox, rule("ops", receiver, batch_size=100)):
            add_moves(path, 250)
            receiver.wait_for(4)
        failed, *accepted = (request.ids for request in receiver.received)
        assert failed == accepted[0]
        assert [int(number) for ids in accepted for number in ids] == list(range(1, 251))


def test_a_reload_changes_only_what_differs(outbox: Outbox, path: Path) -> None:
    """A new rule starts, a rule that is gone stops, and another rule of a name replaces it."""
    with receiving() as first, receiving() as second:
        with working(outbox, rule("a", first), rule("b", first)) as workers:
            kept, threads = workers.rules[0], named("notify a")
            workers.apply([kept, rule("b", second), rule("c", second)])
            assert [each.name for each in workers.rules] == ["a", "b", "c"]
            assert named("notify a") == threads
            add_moves(path, 1)
            first.wait_for(1)
            second.wait_for(2)
            workers.apply([])
            assert workers.rules == ()
        assert (len(first.received), len(second.received)) == (1, 2)


def test_a_wrong_rule_changes_nothing(outbox: Outbox, path: Path) -> None:
    """If one rule is wrong, all workers go on as before."""
    with receiving() as receiver:
        with working(outbox, rule("ops", receiver)) as workers:
            wrong = Rule("wrong", WebhookTarget(Secret("nonsense")))
            with pytest.raises(ConfigError, match="notify 'wrong'"):
                workers.apply([wrong])
            add_moves(path, 1)
            receiver.wait_for(1)
        assert outbox.destination("wrong") is None


def test_a_stop_gives_up_the_lease(outbox: Outbox, path: Path) -> None:
    """A worker that waits for its receiver does not delay a stop, nor the next process."""
    answer = Event()

    with receiving() as receiver:
        receiver.before_answer = lambda: answer.wait(10)
        workers = Workers(outbox, interval=0.01)
        workers.apply([rule("ops", receiver)])
        add_moves(path, 1)
        receiver.wait_for(1)
        began = monotonic()
        workers.stop()
        assert not workers.join(0.05)
        assert monotonic() - began < 2
        state = destination(outbox)
        assert (state.lease_holder, state.failures, state.cursor) == (None, 0, 0)
        answer.set()
        workers.join(10)


def test_sending_holds_no_lock(outbox: Outbox, path: Path) -> None:
    """While a receiver takes its time, no transaction is open that others would wait for."""
    answer, arrived = Event(), Event()

    def wait() -> None:
        arrived.set()
        answer.wait(10)

    with receiving() as receiver:
        receiver.before_answer = wait
        with working(outbox, rule("ops", receiver)):
            add_moves(path, 1)
            assert arrived.wait(10)
            with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
                (busy, *_) = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                assert not busy, "neither a writer nor a reader is in a transaction"
            answer.set()
            receiver.wait_for(1)


class Breakable(Outbox):
    """An outbox with a bug, once a test says so."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__(outbox._read, outbox._write)  # noqa: SLF001  the same database
        self.breaks = Event()
        self.used = Event()

    def destination(self, name: str) -> Destination | None:
        if self.breaks.is_set():
            self.used.set()
            raise ZeroDivisionError("a bug")
        return super().destination(name)


def test_a_bug_is_reported(outbox: Outbox) -> None:
    """An unexpected error is logged and shown in /healthz, instead of silence."""
    breakable = Breakable(outbox)
    with (
        receiving() as receiver,
        structlog.testing.capture_logs() as logs,
        working(breakable, rule("ops", receiver)) as workers,
    ):
        assert workers.problems() == []
        breakable.breaks.set()
        assert breakable.used.wait(10)
        eventually(lambda: workers.problems() != [])
        (sentence,) = workers.problems()
    assert "the notifications of ops failed by a bug of tagsync" in sentence
    assert [entry["event"] for entry in logs] == ["notify.crashed"]


@pytest.mark.processes
def test_sync_delivers_for_a_limited_time(outbox: Outbox, path: Path) -> None:
    """`sync` sends what waits at once, and does not wait for a receiver that hangs."""
    hang = Event()

    with receiving() as alive, receiving() as slow:
        slow.before_answer = lambda: hang.wait(60)
        rules = [rule("alive", alive, batch=timedelta(days=1)), rule("slow", slow)]
        add_destinations(outbox, rules)
        add_moves(path, 3)
        began = monotonic()
        # No message is begun in the last second and a half, which a busy machine needs to begin.
        deliver_within(outbox, rules, 6)
        assert monotonic() - began < 30
        hang.set()
        assert alive.ids == ["1", "2", "3"]
        assert "did not answer" in (destination(outbox, "slow").last_error or "")
        assert destination(outbox, "slow").lease_holder is None


def test_sync_ends_when_nothing_waits(outbox: Outbox, path: Path) -> None:
    """Without events, and for a destination that another process serves, `sync` does not wait."""
    with receiving() as receiver:
        rules = [rule("idle", receiver), rule("busy", receiver)]
        add_destinations(outbox, rules)
        began = monotonic()
        deliver_within(outbox, rules[:1], 10)
        add_moves(path, 1)
        assert Lease(outbox, "busy", utc_now).acquire()
        deliver_within(outbox, rules, 10)
        assert monotonic() - began < 5
        assert len(receiver.received) == 1


def test_statuses_count_what_waits(outbox: Outbox, path: Path) -> None:
    """The status of a destination counts the events that its filter lets through."""
    with receiving() as receiver:
        rules = [rule("ops", receiver), rule("new", receiver)]
        outbox.add("ops", after=0)
        outbox.add("old", after=0)
        add_moves(path, 2)
        add_stale(path, 3)
        ops, new, old = statuses(outbox, rules, FakeClock().now)
        assert (ops.kind, ops.cursor, ops.newest, ops.waiting) == ("webhook", 0, 5, 2)
        assert (new.kind, new.cursor, new.waiting) == ("webhook", None, 0)
        assert (old.kind, old.waiting) == (None, 5)


def test_an_hour_of_failures_is_unhealthy(outbox: Outbox, path: Path) -> None:
    """A destination that has failed for an hour while events wait is a fault of the daemon."""
    clock = FakeClock()
    with receiving() as receiver:
        rules = [rule("ops", receiver)]
        outbox.add("ops", after=0)
        lease = Lease(outbox, "ops", clock)
        lease.acquire()
        now = timestamp(clock())
        outbox.refuse("ops", lease.holder, "status 500", now, now)
        clock.advance(minutes=61)
        assert failing_for_long(statuses(outbox, rules, clock()), clock()) == []
        add_moves(path, 1)
        (sentence,) = failing_for_long(statuses(outbox, rules, clock()), clock())
        assert "ops has not accepted anything since" in sentence
        clock.advance(minutes=-2)
        assert failing_for_long(statuses(outbox, rules, clock()), clock()) == []


def test_a_lease_is_waited_for(outbox: Outbox) -> None:
    """A command that needs the lease waits for a process that sends, for a limited time."""
    clock = FakeClock()
    outbox.add("ops")
    other = Lease(outbox, "ops", clock)
    other.acquire()
    with leased(outbox, "ops", clock, 5, lambda seconds: clock.advance(seconds=seconds)) as lease:
        assert lease is None
    with leased(outbox, "ops", clock, 5, lambda _: other.release()) as lease:
        assert lease is not None
        assert destination(outbox).lease_holder == lease.holder
    assert destination(outbox).lease_holder is None


def test_a_lease_is_renewed_while_a_message_is_sent(outbox: Outbox) -> None:
    """A receiver may take longer than a third of the lease's time."""
    clock = FakeClock()
    outbox.add("ops")
    lease = Lease(outbox, "ops", clock)
    lease.acquire()
    clock.advance(seconds=40)
    renewed = Event()

    class Watched(Outbox):
        def renew(self, name: str, holder: str, until: str) -> bool:
            done = super().renew(name, holder, until)
            renewed.set()
            return done

    counted = Watched(outbox._read, outbox._write)  # noqa: SLF001  the same database
    watched = Lease(counted, "ops", clock, renewed_every=0.01)
    lease.release()
    watched.acquire()
    clock.advance(seconds=40)
    with watched.renewed():
        assert renewed.wait(10)
    clock.advance(seconds=40)
    assert not lease.acquire()

"""Delivery: nothing is lost, nothing is invented, and a repetition has the same ids."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from random import Random
from threading import Event

import pytest

from tagsync.clock import timestamp
from tagsync.database.outbox import Outbox
from tagsync.errors import NotDelivered, StoreError
from tagsync.notify.delivery import FIRST_BACKOFF, LONGEST_BACKOFF, POLL_INTERVAL, Delivery
from tagsync.notify.lease import LEASE, Lease
from tagsync.notify.messages import Message
from tagsync.notify.sender import Sender
from tagsync.notify.status import statuses
from tagsync.notify.targets import AppriseTarget, CommandTarget, Rule
from tagsync.secrets import Secret
from tests.support.clock import FakeClock
from tests.support.events import add_moves, add_stale, destination, outbox_of

RULE = Rule("ops", CommandTarget(("/bin/true",)), batch_size=3)


class Recorder(Sender):
    """A sender that keeps what it is sent, and fails as often as the test says."""

    def __init__(self, *, sums_up: bool = False) -> None:
        self.sums_up = sums_up
        self.sent: list[Message] = []
        self.errors: list[NotDelivered] = []
        self.seconds: list[float] = []
        self.during: Callable[[], object] = lambda: None

    @property
    def ids(self) -> list[list[int]]:
        return [[event.id for event in message.events] for message in self.sent]

    def send(self, message: Message, seconds: float) -> str:
        self.sent.append(message)
        self.seconds.append(seconds)
        self.during()
        if self.errors:
            raise self.errors.pop(0)
        return "accepted"

    def stop(self) -> None:
        pass

    def close(self) -> None:
        pass


class Highest(Random):
    """Random numbers that are the highest possible ones."""

    def uniform(self, a: float, b: float) -> float:
        return b


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tagsync.db"


@pytest.fixture
def outbox(path: Path) -> Iterator[Outbox]:
    """The outbox of a new database, with a destination that wants everything."""
    with outbox_of(path) as outbox:
        outbox.add("ops", after=0)
        yield outbox


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def delivery(
    outbox: Outbox, sender: Sender, clock: FakeClock, rule: Rule = RULE, *, at_once: bool = False
) -> Delivery:
    return Delivery(
        outbox,
        rule,
        sender,
        at_once=at_once,
        clock=clock,
        monotonic=lambda: clock().timestamp(),
        random=Highest(),
    )


def test_everything_that_waits_is_delivered_in_order(
    outbox: Outbox, path: Path, clock: FakeClock
) -> None:
    """All events arrive once, in batches of at most batch_size, and the cursor follows."""
    sender = Recorder()
    add_moves(path, 7)
    assert delivery(outbox, sender, clock).deliver() is None
    assert sender.ids == [[1, 2, 3], [4, 5, 6], [7]]
    assert [message.sequence for message in sender.sent] == [1, 4, 7]
    state = destination(outbox)
    assert (state.cursor, state.sequence, state.batch) == (7, 7, None)
    assert state.lease_holder is None


def test_a_new_destination_gets_the_events_of_the_future(path: Path, clock: FakeClock) -> None:
    """What happened before a destination was added is not sent to it."""
    with outbox_of(path) as outbox:
        add_moves(path, 2)
        sender = Recorder()
        first = delivery(outbox, sender, clock)
        assert first.deliver() is None
        add_moves(path, 1)
        assert first.deliver() is None
        assert sender.ids == [[3]]


def test_events_that_are_not_wanted_are_passed(
    outbox: Outbox, path: Path, clock: FakeClock
) -> None:
    """The cursor passes events that the filter keeps out, and the sequence has no gap."""
    sender = Recorder()
    add_moves(path, 1)
    add_stale(path, 2000)
    add_moves(path, 1)
    add_stale(path, 1)
    assert delivery(outbox, sender, clock).deliver() is None
    assert sender.ids == [[1, 2002]]
    assert destination(outbox).cursor == 2003
    assert destination(outbox).sequence == 2


def test_a_failed_batch_keeps_its_bounds(outbox: Outbox, path: Path, clock: FakeClock) -> None:
    """A retry has the same events, id and sequence, although more events wait by then."""
    sender = Recorder()
    sender.errors = [NotDelivered("status 500")]
    add_moves(path, 2)
    pause = delivery(outbox, sender, clock).deliver()
    assert pause == FIRST_BACKOFF.total_seconds()
    assert destination(outbox).cursor == 0
    add_moves(path, 2)
    clock.advance(seconds=1)
    # Another process goes on, with another batch size.
    other = Rule("ops", RULE.target, batch_size=1)
    assert delivery(outbox, sender, clock, other).deliver() is None
    assert sender.ids == [[1, 2], [1, 2], [3], [4]]
    assert sender.sent[0].id == sender.sent[1].id
    assert [message.sequence for message in sender.sent] == [1, 1, 3, 4]


def test_retries_back_off(outbox: Outbox, path: Path, clock: FakeClock) -> None:
    """The delay doubles up to its limit, and nothing is sent before it is over."""
    sender = Recorder()
    sender.errors = [NotDelivered("status 500")] * 20
    add_moves(path, 1)
    one = delivery(outbox, sender, clock)
    pauses = []
    for _ in range(12):
        pause = one.deliver()
        assert pause is not None
        pauses.append(pause)
        count = len(sender.sent)
        clock.advance(seconds=pause - 0.01)
        assert one.deliver() == pytest.approx(0.01)
        assert len(sender.sent) == count
        clock.advance(seconds=0.01)
    assert pauses[:4] == [1, 2, 4, 8]
    assert pauses[-1] == LONGEST_BACKOFF.total_seconds()
    state = destination(outbox)
    assert (state.failures, state.last_error) == (12, "status 500")


def test_a_receiver_may_ask_for_a_longer_delay(
    outbox: Outbox, path: Path, clock: FakeClock
) -> None:
    """Retry-After is a lower limit of the delay, but for at most an hour."""
    sender = Recorder()
    sender.errors = [
        NotDelivered("throttled", retry_after=120),
        NotDelivered("throttled", retry_after=1e6),
    ]
    add_moves(path, 1)
    one = delivery(outbox, sender, clock)
    assert one.deliver() == 120
    clock.advance(seconds=120)
    assert one.deliver() == 3600


def test_a_clock_that_goes_back_does_not_silence_a_destination(
    outbox: Outbox, path: Path, clock: FakeClock
) -> None:
    """After the clock was set back by a day, neither the backoff nor a lost lease lasts a day."""
    sender = Recorder()
    sender.errors = [NotDelivered("status 500")]
    add_moves(path, 1)
    assert delivery(outbox, sender, clock).deliver() == 1
    assert Lease(outbox, "ops", clock).acquire()
    clock.advance(days=-1)
    assert delivery(outbox, sender, clock).deliver() is None
    assert sender.ids == [[1], [1]]


def test_a_batch_waits_for_more(outbox: Outbox, path: Path, clock: FakeClock) -> None:
    """With batch, the first event waits for others, until the batch is full or the time is over."""
    sender = Recorder()
    rule = Rule("ops", RULE.target, batch=timedelta(seconds=30), batch_size=3)
    one = delivery(outbox, sender, clock, rule)
    add_moves(path, 1)
    assert one.deliver() == 30
    clock.advance(seconds=20)
    add_moves(path, 1)
    assert one.deliver() == 10
    assert not sender.sent
    clock.advance(seconds=10)
    assert one.deliver() is None
    add_moves(path, 3)
    assert one.deliver() is None
    assert sender.ids == [[1, 2], [3, 4, 5]]


def test_a_batch_does_not_wait_for_a_clock_that_was_set_back(
    outbox: Outbox, path: Path, clock: FakeClock
) -> None:
    """If the clock goes back by a day, the batch is sent after its time all the same."""
    sender, seconds = Recorder(), [0.0]
    rule = Rule("ops", RULE.target, batch=timedelta(seconds=30))
    one = Delivery(outbox, rule, sender, clock=clock, monotonic=lambda: seconds[0])
    add_moves(path, 1)
    assert one.deliver() == 30
    clock.advance(days=-1)
    seconds[0] = 10
    assert one.deliver() == 20
    seconds[0] = 30
    assert one.deliver() is None
    assert sender.ids == [[1]]


def test_a_process_that_ends_does_not_wait_for_more(
    outbox: Outbox, path: Path, clock: FakeClock
) -> None:
    """`sync` sends at once, because it records nothing more."""
    sender = Recorder()
    rule = Rule("ops", RULE.target, batch=timedelta(days=1))
    add_moves(path, 1)
    assert delivery(outbox, sender, clock, rule, at_once=True).deliver() is None
    assert sender.ids == [[1]]


def test_a_flood_is_one_message_for_people(outbox: Outbox, path: Path, clock: FakeClock) -> None:
    """A message for people counts everything that waits, and has only the first events."""
    sender = Recorder(sums_up=True)
    rule = Rule("ops", AppriseTarget(Secret("json://localhost")), batch_size=3)
    add_moves(path, 2500)
    assert delivery(outbox, sender, clock, rule).deliver() is None
    assert sender.ids == [[1, 2, 3]]
    assert sender.sent[0].total == 2500
    state = destination(outbox)
    assert (state.cursor, state.sequence) == (2500, 1)


def test_a_flood_is_no_webhook(outbox: Outbox, path: Path, clock: FakeClock) -> None:
    """If the kind of a destination changes, its new receiver gets batches of at most batch_size."""
    people, program = Recorder(sums_up=True), Recorder()
    people.errors = [NotDelivered("no answer")]
    rule = Rule("ops", AppriseTarget(Secret("json://localhost")), batch_size=3)
    add_moves(path, 1001)
    delivery(outbox, people, clock, rule).deliver()
    clock.advance(seconds=1)
    webhook = Rule("ops", RULE.target, batch_size=500)
    assert delivery(outbox, program, clock, webhook).deliver() is None
    assert max(map(len, program.ids)) == 500
    assert sum(map(len, program.ids)) == 1001


def test_only_the_holder_of_the_lease_sends(outbox: Outbox, path: Path, clock: FakeClock) -> None:
    """Two processes do not send the same, and a lease that has run out is taken over."""
    add_moves(path, 1)
    sender = Recorder()
    assert Lease(outbox, "ops", clock).acquire()
    assert delivery(outbox, sender, clock).deliver() == POLL_INTERVAL
    assert delivery(outbox, sender, clock, at_once=True).deliver() is None
    assert not sender.sent
    clock.advance(seconds=LEASE.total_seconds())
    assert delivery(outbox, sender, clock).deliver() is None
    assert sender.ids == [[1]]


def test_the_lease_is_renewed_while_a_message_is_sent(
    outbox: Outbox, path: Path, clock: FakeClock
) -> None:
    """A receiver may take longer than the lease lasts, and no other process sends meanwhile."""
    add_moves(path, 1)
    sender, other = Recorder(), Lease(outbox, "ops", clock)
    one = Delivery(outbox, RULE, sender, clock=clock, renewed_every=0.01)

    def take_long() -> None:
        for _ in range(3):
            clock.advance(seconds=40)
            end = timestamp(clock() + LEASE)
            while destination(outbox).lease_until != end:
                Event().wait(0.005)
            assert not other.acquire()

    sender.during = take_long
    assert one.deliver() is None
    assert destination(outbox).sequence == 1


def test_the_lease_is_renewed_between_messages(
    outbox: Outbox, path: Path, clock: FakeClock
) -> None:
    """Many messages in a row may take longer than the lease lasts."""
    add_moves(path, 12)
    sender, other = Recorder(), Lease(outbox, "ops", clock)

    def take_long() -> None:
        clock.advance(seconds=25)
        assert not other.acquire()

    sender.during = take_long
    assert delivery(outbox, sender, clock).deliver() is None
    assert len(sender.sent) == 4


def test_a_stop_is_no_failure(outbox: Outbox, path: Path, clock: FakeClock) -> None:
    """A message that a stop of tagsync interrupts does not count as refused."""
    add_moves(path, 4)
    sender = Recorder()
    one = delivery(outbox, sender, clock)
    sender.errors = [NotDelivered("it was ended")]
    sender.during = one.stop
    assert one.deliver() == POLL_INTERVAL
    assert (destination(outbox).failures, destination(outbox).batch_ids) == (0, (1, 2, 3))


def test_a_lost_lease_records_nothing(outbox: Outbox, path: Path, clock: FakeClock) -> None:
    """Who lost the lease while sending leaves the batch to the new holder: with the same ids."""
    add_moves(path, 1)
    slow, quick = Recorder(), Recorder()

    def take_over() -> None:
        clock.advance(seconds=61)
        slow.during = lambda: None
        assert delivery(outbox, quick, clock).deliver() is None

    slow.during = take_over
    assert delivery(outbox, slow, clock).deliver() == POLL_INTERVAL
    assert slow.sent[0].id == quick.sent[0].id
    assert slow.sent[0].sequence == quick.sent[0].sequence
    assert destination(outbox).sequence == 1


def test_a_replay_is_not_lost(outbox: Outbox, path: Path, clock: FakeClock) -> None:
    """A replay sends events again with the ids they had, under new numbers."""
    add_moves(path, 2)
    sender = Recorder()
    one = delivery(outbox, sender, clock)
    one.deliver()
    outbox.move("ops", 0)
    one.deliver()
    assert sender.ids == [[1, 2], [1, 2]]
    assert sender.sent[0].id == sender.sent[1].id
    assert [message.sequence for message in sender.sent] == [1, 3]


def full_disk(path: Path) -> None:
    """Make every UPDATE of destinations fail, as on a full disk."""
    run(
        path, "CREATE TRIGGER full BEFORE UPDATE ON destinations BEGIN SELECT RAISE(ABORT, ''); END"
    )


def run(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(sql)


def test_nothing_is_sent_that_could_not_be_recorded(
    outbox: Outbox, path: Path, clock: FakeClock
) -> None:
    """On a full disk nothing is sent, because no batch can be begun."""
    add_moves(path, 1)
    sender = Recorder()
    full_disk(path)
    with pytest.raises(StoreError):
        delivery(outbox, sender, clock).deliver()
    assert not sender.sent


def test_an_acceptance_is_recorded_later(outbox: Outbox, path: Path, clock: FakeClock) -> None:
    """If the disk is full when a receiver accepts, the process does not send that batch again."""
    add_moves(path, 4)
    sender = Recorder()
    sender.during = lambda: full_disk(path)
    one = delivery(outbox, sender, clock)
    with pytest.raises(StoreError):
        one.deliver()
    run(path, "DROP TRIGGER full")
    sender.during = lambda: None
    clock.advance(seconds=61)
    assert one.deliver() is None
    assert sender.ids == [[1, 2, 3], [4]]
    assert destination(outbox).sequence == 4


def test_a_replay_is_not_taken_for_an_unrecorded_acceptance(
    outbox: Outbox, path: Path, clock: FakeClock
) -> None:
    """A batch with the same events is sent again if it was asked for after the disk was full."""
    add_moves(path, 2)
    sender = Recorder()
    sender.during = lambda: full_disk(path)
    one = delivery(outbox, sender, clock)
    with pytest.raises(StoreError):
        one.deliver()
    run(path, "DROP TRIGGER full")
    sender.during = lambda: None
    outbox.move("ops", 0)
    clock.advance(seconds=61)
    assert one.deliver() is None
    assert sender.ids == [[1, 2], [1, 2]]


def test_time_limits_a_delivery(outbox: Outbox, path: Path, clock: FakeClock) -> None:
    """No message is begun when less than a second is left, and none may take longer."""
    add_moves(path, 9)
    sender = Recorder()
    left = iter([5.0, 5.0, 1.5, 1.5, 0.5])
    assert delivery(outbox, sender, clock).deliver(lambda: next(left)) == 0
    assert sender.ids == [[1, 2, 3], [4, 5, 6]]
    assert sender.seconds == [5.0, 1.5]


def test_a_damaged_event_is_a_failure(outbox: Outbox, path: Path, clock: FakeClock) -> None:
    """A row that tagsync did not write is shown as the destination's error, and sends nothing."""
    add_moves(path, 1)
    outbox.acquire("ops", "a", "2026-05-03T12:00:00.000Z", "2026-05-03T12:00:01.000Z")
    outbox.begin("ops", "a", [1, 99])
    outbox.release("ops", "a")
    sender = Recorder()
    assert delivery(outbox, sender, clock).deliver() == 1
    assert "events that do not exist" in (destination(outbox).last_error or "")
    assert not sender.sent


def test_an_event_that_tagsync_did_not_write_is_a_failure(
    outbox: Outbox, path: Path, clock: FakeClock
) -> None:
    """A damaged event is shown as the destination's error, and its status counts what waits."""
    add_moves(path, 2)
    run(path, "DROP TRIGGER events_are_never_updated")
    run(path, "UPDATE events SET at = 'yesterday' WHERE id = 2")
    sender = Recorder()
    assert delivery(outbox, sender, clock).deliver() == 1
    assert "event 2" in (destination(outbox).last_error or "")
    assert not sender.sent
    assert statuses(outbox, [RULE], clock())[0].waiting == 2


def test_a_damaged_destination_hides_no_other(outbox: Outbox, path: Path, clock: FakeClock) -> None:
    """A damaged row of a destination is shown as its error, and the others have their status."""
    add_moves(path, 2)
    outbox.add("page", 1)
    run(path, "UPDATE destinations SET batch = 'garbage' WHERE name = 'ops'")
    ops, page = statuses(outbox, [RULE], clock())
    assert (ops.name, ops.failures, ops.waiting) == ("ops", 1, 2)
    assert "the destination ops" in (ops.last_error or "")
    assert (page.name, page.failures, page.waiting) == ("page", 0, 1)


def test_nothing_is_sent_from_a_database_that_was_replaced(
    outbox: Outbox, path: Path, clock: FakeClock
) -> None:
    """Once another file is in the place of the database, nothing more is sent."""
    add_moves(path, 1)
    sender = Recorder()
    one = delivery(outbox, sender, clock)
    path.rename(path.with_suffix(".old"))
    with pytest.raises(StoreError):
        one.deliver()
    assert not sender.sent


class FlushNoting(Outbox):
    """The outbox of an open database, which notes its flushes and may fail them."""

    def __init__(self, outbox: Outbox, notes: list[str]) -> None:
        self.__dict__.update(outbox.__dict__)
        self.notes = notes
        self.fails = False

    def flush(self) -> None:
        self.notes.append("flushed")
        if self.fails:
            raise StoreError("the disk reports an error")
        super().flush()


def test_event_is_on_the_disk_before_it_is_sent(
    outbox: Outbox, path: Path, clock: FakeClock
) -> None:
    """A power cut must not undo an event that was sent; without a safe record nothing is sent."""
    add_moves(path, 1)
    sender = Recorder()
    noting = FlushNoting(outbox, [])
    sender.during = lambda: noting.notes.append("sent")
    noting.fails = True
    with pytest.raises(StoreError, match="the disk reports an error"):
        delivery(noting, sender, clock).deliver()
    assert noting.notes == ["flushed"]
    noting.fails = False
    assert delivery(noting, sender, clock).deliver() is None
    assert noting.notes == ["flushed", "flushed", "sent"]

"""The daemon sends notifications, shows destinations that fail, and stops in time."""

from collections.abc import Callable
from datetime import timedelta
from threading import Event
from time import monotonic

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tagsync.daemon.metrics import Metrics
from tagsync.daemon.service import Daemon
from tagsync.database.store import Store
from tagsync.errors import ConfigError
from tagsync.notify.targets import Rule, WebhookTarget
from tagsync.notify.workers import Workers
from tagsync.secrets import Secret
from tests.support.clock import FakeClock
from tests.support.daemon import FakeManager, FakeRegistry, plan, watch
from tests.support.receiver import Answer, Receiver, receiving
from tests.support.scheduler import FakeScheduler
from tests.support.waiting import eventually

Start = Callable[..., Daemon]

OLD = f"sha256:{'1' * 64}"
NEW = f"sha256:{'2' * 64}"


def rule(receiver: Receiver) -> Rule:
    return Rule("ops", WebhookTarget(Secret(receiver.url)))


@pytest.fixture
def workers(store: Store, clock: FakeClock) -> Workers:
    return Workers(store.outbox, interval=0.01, clock=clock)


def value(metrics: Metrics, name: str) -> float:
    """The value of a metric of the destination, as Prometheus reads it."""
    body = b"".join(
        metrics.exposition()({"PATH_INFO": "/metrics", "REQUEST_METHOD": "GET"}, lambda *_: None)
    )
    (found,) = (
        sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
        if sample.name == name and sample.labels == {"destination": "ops"}
    )
    return found


def failures_of(store: Store) -> int:
    """How often in a row the destination has refused a message, as recorded."""
    row = store.outbox.destination("ops")
    return 0 if row is None else row.failures


def test_a_move_is_sent(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, workers: Workers
) -> None:
    """The poll that records a move is followed by its message, with what was there before."""
    registry.digests["team/api"] = OLD
    metrics = Metrics("test")
    with receiving() as receiver:
        watched = plan(watch("team/api"), a=registry)
        first = msgspec.structs.replace(watched, rules=(rule(receiver),))
        start(first, workers=workers, metrics=metrics)
        scheduler.advance(minutes=2)
        registry.digests["team/api"] = NEW
        scheduler.advance(minutes=2)
        receiver.wait_for(1)
        workers.stop()
        assert workers.join(10)
        (sent,) = (each for request in receiver.received for each in request.events)
        scheduler.advance(minutes=1)
    assert (sent["type"], sent["subject"]) == ("tagsync.tag.moved", "a/team/api:v1")
    assert (sent["data"]["old_digest"], sent["data"]["new_digest"]) == (OLD, NEW)
    assert value(metrics, "tagsync_notify_accepted_total") == 1
    assert value(metrics, "tagsync_notify_waiting_events") == 0


def test_a_dead_destination_is_shown(
    start: Start,
    scheduler: FakeScheduler,
    registry: FakeRegistry,
    workers: Workers,
    store: Store,
) -> None:
    """After an hour without an acceptance /healthz names the destination; polls go on."""
    metrics = Metrics("test")
    with receiving(Answer(500, body="broken")) as receiver:
        watched = plan(watch("team/api"), a=registry)
        daemon = start(
            msgspec.structs.replace(watched, rules=(rule(receiver),)),
            workers=workers,
            metrics=metrics,
        )
        scheduler.advance(minutes=2)
        registry.digests["team/api"] = NEW
        scheduler.advance(minutes=2)
        receiver.wait_for(1)
        eventually(lambda: failures_of(store) > 0)
        scheduler.advance(minutes=50)
        assert daemon.health() == []
        assert value(metrics, "tagsync_notify_waiting_events") == 1
        assert value(metrics, "tagsync_notify_failures") >= 1
        scheduler.advance(minutes=15)
        (sentence,) = daemon.health()
    assert "the destination ops has not accepted anything since" in sentence
    assert "status 500: broken" in sentence
    assert "T0KEN" not in sentence


def test_a_reload_replaces_the_destinations(
    start: Start, registry: FakeRegistry, workers: Workers
) -> None:
    """SIGHUP adds and removes destinations; a wrong one leaves all as it was."""
    with receiving() as receiver:
        watched = plan(watch("team/api"), a=registry)
        wrong = Rule("ops", WebhookTarget(Secret("nonsense")))
        plans = iter(
            [
                msgspec.structs.replace(watched, rules=(rule(receiver),)),
                msgspec.structs.replace(watched, rules=(wrong,)),
            ]
        )
        daemon = start(watched, reload=lambda: next(plans), workers=workers)
        for _ in range(2):
            daemon.request("reload")
            daemon.handle_request()
            assert workers.rules == (rule(receiver),)
        assert "notify 'ops'" in daemon.summary()


def test_a_wrong_destination_is_refused_at_the_start(start: Start, registry: FakeRegistry) -> None:
    """The daemon does not start with a destination that it cannot use."""
    wrong = Rule("ops", WebhookTarget(Secret("nonsense")))
    watched = plan(watch("team/api"), a=registry)
    with pytest.raises(ConfigError, match="notify 'ops'"):
        start(msgspec.structs.replace(watched, rules=(wrong,)))


@pytest.mark.processes
def test_a_slow_receiver_does_not_delay_a_stop(
    start: Start, scheduler: FakeScheduler, registry: FakeRegistry, workers: Workers
) -> None:
    """The daemon stops in five seconds while a receiver has not answered."""
    answer = Event()
    with receiving() as receiver:
        receiver.before_answer = lambda: answer.wait(20)
        watched = plan(watch("team/api", interval=timedelta(minutes=1)), a=registry)
        daemon = start(
            msgspec.structs.replace(watched, rules=(rule(receiver),)),
            workers=workers,
            manager=FakeManager(),
        )
        scheduler.advance(minutes=2)
        registry.digests["team/api"] = NEW
        scheduler.advance(minutes=2)
        receiver.wait_for(1)
        began = monotonic()
        assert not daemon.stop()
        assert monotonic() - began < 4.5
        answer.set()

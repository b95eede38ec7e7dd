"""Metrics for Prometheus.

Names follow Prometheus's "Metric and label naming": the unit at the end, counters with ``_total``.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final, Literal, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    make_wsgi_app,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from tagsync.clock import parse_timestamp
from tagsync.daemon.health import Census
from tagsync.database.usage import DiskUsage
from tagsync.database.verifications import Result, Verification
from tagsync.models import Kind
from tagsync.notify.status import DestinationStatus
from tagsync.polling.jobs import Poll, PollOutcome

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
"""A WSGI application (PEP 3333)."""

HintResult = Literal[
    "accepted",
    "coalesced",
    "discovery",
    "unwatched",
    "ignored",
    "unknown",
    "malformed",
    "throttled",
    "unauthorized",
]
"""The result of a push hint: the first four for each repository, the others for a whole request.

``ignored`` means a known sender, but no event that changes a tag. ``unknown`` means that no known
sender writes such a body.
"""

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_BYTES: Final = tuple(4**exponent * 1024 for exponent in range(11))
"""From 1 KiB to 1 GiB."""


class Metrics:
    """Counters since the start, and gauges that are computed on each scrape."""

    def __init__(self, version: str) -> None:
        """Create all metrics."""
        # The creation time of each series is not useful here and doubles the size of a scrape.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no type here
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        Info("tagsync_build", "The version of tagsync.", registry=self._registry).info(
            {"version": version}
        )
        self._polls = self._counter("tagsync_polls", "Polls.", "outcome")
        self._changes = self._counter("tagsync_changes", "Recorded changes.", "kind")
        self._requests = self._counter("tagsync_requests", "Requests that polls sent.")
        self._discoveries = self._counter(
            "tagsync_discoveries", "Expansions of a watch's globs.", "outcome"
        )
        self._overruns = self._counter(
            "tagsync_overruns", "Polls that were still under way when they were due again."
        )
        self._hints = self._counter("tagsync_hints", "Push hints.", "result")
        self._seconds = self._histogram(
            "tagsync_poll_duration_seconds", "Duration of polls.", _SECONDS
        )
        self._delay = self._histogram(
            "tagsync_poll_delay_seconds", "Time from when a poll was due to its start.", _SECONDS
        )
        self._bytes = self._histogram(
            "tagsync_listing_size_bytes", "Size of listings, all pages together.", _BYTES
        )
        self._reload = self._gauge(
            "tagsync_config_last_reload_successful",
            "Whether the last reload of the configuration succeeded.",
        )
        self._reload.set(1)
        self._heads_logged = self._gauge(
            "tagsync_last_heads_logged_timestamp_seconds",
            "Time when the heads of the hash chains were last logged, or of the start.",
        )
        self._pending = self._gauge(
            "tagsync_pending_log_lines", "Recorded changes whose log lines are pending."
        )
        self._open_alarms = self._gauge(
            "tagsync_open_immutable_changes",
            "Changes that moved or deleted an immutable tag, and were not accepted.",
        )
        self._disk: _DiskGauges | None = None
        self._verified: _VerificationGauges | None = None

    def add_registry(self, registry: str) -> None:
        """Create a registry's counters at zero, so that its first failure is an increase."""
        for outcome in get_args(PollOutcome):
            self._polls.labels(registry, outcome)
        for kind in get_args(Kind):
            self._changes.labels(registry, kind)
        self._requests.labels(registry)
        self._overruns.labels(registry)

    def count_poll(self, poll: Poll, delay: float) -> None:
        """Count a poll.

        Args:
            poll: Its result.
            delay: Seconds from when it was due to its start.
        """
        name = poll.repository.registry
        self._polls.labels(name, poll.outcome).inc()
        for kind in get_args(Kind):
            self._changes.labels(name, kind).inc(getattr(poll, kind))
        self._requests.labels(name).inc(poll.requests)
        self._seconds.labels(name).observe(poll.seconds)
        self._delay.labels(name).observe(delay)
        if poll.outcome != "failed":
            self._bytes.labels(name).observe(poll.size)

    def add_hints(self, registry: str) -> None:
        """Create a registry's counters of push hints at zero.

        Args:
            registry: Its name. Empty for requests that do not prove to know the secret.
        """
        for result in get_args(HintResult):
            self._hints.labels(registry, result)

    def count_hints(self, registry: str, result: HintResult, count: int = 1) -> None:
        """Count push hints. See `add_hints` for the name of the registry."""
        self._hints.labels(registry, result).inc(count)

    def count_overrun(self, registry: str) -> None:
        """Count a poll that was still under way when it was due again."""
        self._overruns.labels(registry).inc()

    def count_discovery(self, registry: str, *, failed: bool) -> None:
        """Count an expansion of a watch's globs."""
        self._discoveries.labels(registry, "failed" if failed else "ok").inc()

    def set_reload(self, *, failed: bool) -> None:
        """Set whether the last reload of the configuration succeeded."""
        self._reload.set(not failed)

    def set_heads_logged(self, at: datetime) -> None:
        """Set when the heads of the hash chains were logged."""
        self._heads_logged.set(at.timestamp())

    def set_pending_log_lines(self, count: int) -> None:
        """Set how many changes have pending log lines."""
        self._pending.set(count)

    def set_open_immutable_changes(self, count: int) -> None:
        """Set how many changes of immutable tags were not accepted."""
        self._open_alarms.set(count)

    def set_disk_usage(self, usage: DiskUsage) -> None:
        """Set the sizes of the database and of its file system.

        Before the first call no gauge is exported, because 0 would look like a full disk.
        """
        if self._disk is None:
            self._disk = _DiskGauges(self._registry)
        self._disk.set(usage)

    def set_verification(self, last: Verification) -> None:
        """Set the last verification of the database. Before the first one, no gauge is exported."""
        if self._verified is None:
            self._verified = _VerificationGauges(self._registry)
        self._verified.set(last)

    def collect_from(self, census: Callable[[], Sequence[Census]]) -> None:
        """Set the function that each scrape calls to count the repositories."""
        self._registry.register(_CensusCollector(census))

    def collect_destinations_from(
        self, destinations: Callable[[], Sequence[DestinationStatus]]
    ) -> None:
        """Set the function that each scrape calls for the destinations of notifications."""
        self._registry.register(_DestinationCollector(destinations))

    def exposition(self) -> Application:
        """Return the WSGI application that renders all metrics."""
        application: Application = make_wsgi_app(self._registry)
        return application

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, ("registry", *labels), registry=self._registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(name, text, ("registry",), buckets=buckets, registry=self._registry)


class _DiskGauges:
    """The gauges of the database's files and of their file system."""

    def __init__(self, registry: CollectorRegistry) -> None:
        name = "tagsync_database"
        self._database = Gauge(
            f"{name}_size_bytes", "Size of the database, without its WAL.", registry=registry
        )
        self._wal = Gauge(
            f"{name}_wal_size_bytes", "Size of the write-ahead log (WAL).", registry=registry
        )
        self._free = Gauge(
            f"{name}_free_bytes",
            "Free space of the database's file system, as far as the daemon may use it.",
            registry=registry,
        )
        self._file_system = Gauge(
            f"{name}_filesystem_size_bytes",
            "Size of the database's file system.",
            registry=registry,
        )

    def set(self, usage: DiskUsage) -> None:
        self._database.set(usage.database)
        self._wal.set(usage.wal)
        self._free.set(usage.free)
        self._file_system.set(usage.file_system)


class _VerificationGauges:
    """The gauges of the last verification."""

    def __init__(self, registry: CollectorRegistry) -> None:
        name = "tagsync_last_verification"
        self._at = Gauge(
            f"{name}_timestamp_seconds", "Time of the last verification.", registry=registry
        )
        self._seconds = Gauge(
            f"{name}_duration_seconds", "Duration of the last verification.", registry=registry
        )
        self._result = Gauge(
            f"{name}_result",
            "1 for the result of the last verification, 0 for the others.",
            ("result",),
            registry=registry,
        )

    def set(self, last: Verification) -> None:
        self._at.set(parse_timestamp(last.at).timestamp())
        self._seconds.set(last.seconds)
        for result in get_args(Result):
            self._result.labels(result).set(result == last.result)


class _CensusCollector(Collector):
    def __init__(self, census: Callable[[], Sequence[Census]]) -> None:
        self._census = census

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without values: the daemon may not have started yet."""
        return self._families()

    def collect(self) -> Iterable[Metric]:
        families = self._families()
        repositories, tags, failing, stale, held, distrusted, empty, oldest = families
        for count in self._census():
            name = [count.registry]
            repositories.add_metric(name, count.repositories)
            tags.add_metric(name, count.tags)
            failing.add_metric(name, count.failing)
            stale.add_metric(name, count.stale)
            held.add_metric(name, count.held)
            distrusted.add_metric(name, count.distrusted)
            empty.add_metric(name, count.empty)
            if count.oldest is not None:
                oldest.add_metric(name, count.oldest.timestamp())
        return families

    def _families(self) -> list[GaugeMetricFamily]:
        described = {
            "tagsync_repositories": "Watched repositories.",
            "tagsync_tags": "Tags of the watched repositories.",
            "tagsync_failing_repositories": "Repositories whose last poll failed.",
            "tagsync_stale_repositories": "Repositories without a complete listing for three"
            " intervals.",
            "tagsync_held_repositories": "Repositories whose newest listing was held.",
            "tagsync_distrusted_lists": "Repositories whose registry's own list of tags is not"
            " used, because HEAD contradicted it.",
            "tagsync_empty_watches": "Watches whose globs have matched no repository since the"
            " start, or for a day.",
            "tagsync_oldest_complete_listing_timestamp_seconds": "Time of the oldest among"
            " the repositories' last complete listings. Repositories that were never listed are not"
            " included; they are counted as stale.",
        }
        return [GaugeMetricFamily(*each, labels=["registry"]) for each in described.items()]


class _DestinationCollector(Collector):
    def __init__(self, destinations: Callable[[], Sequence[DestinationStatus]]) -> None:
        self._destinations = destinations

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without values: the daemon may not have started yet."""
        return self._families()

    def collect(self) -> Iterable[Metric]:
        waiting, failures, last, accepted = families = self._families()
        for each in self._destinations():
            if each.kind is None:
                continue
            waiting.add_metric([each.name], each.waiting)
            failures.add_metric([each.name], each.failures)
            accepted.add_metric([each.name], each.sequence)
            if each.last_accepted_at is not None:
                last.add_metric([each.name], parse_timestamp(each.last_accepted_at).timestamp())
        return families

    def _families(self) -> tuple[GaugeMetricFamily | CounterMetricFamily, ...]:
        name, labels = "tagsync_notify", ["destination"]
        return (
            GaugeMetricFamily(
                f"{name}_waiting_events", "Events that wait for a destination.", labels=labels
            ),
            GaugeMetricFamily(
                f"{name}_failures",
                "Consecutive attempts to send to a destination that failed.",
                labels=labels,
            ),
            GaugeMetricFamily(
                f"{name}_last_accepted_timestamp_seconds",
                "Time when a destination last accepted a message.",
                labels=labels,
            ),
            CounterMetricFamily(
                f"{name}_accepted", "Messages that a destination has accepted.", labels=labels
            ),
        )

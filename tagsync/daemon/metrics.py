"""What the daemon tells those who watch it: ``/metrics`` for Prometheus, and ``/healthz``.

Names follow Prometheus' "Metric and label naming": a unit at the end, counters with ``_total``.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    make_wsgi_app,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from tagsync.daemon.health import Census
from tagsync.escaping import escape_control_characters
from tagsync.models import Kind
from tagsync.polling.jobs import Poll, PollOutcome

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
"""Of WSGI (PEP 3333)."""

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_BYTES: Final = tuple(4**exponent * 1024 for exponent in range(11))
"""From 1 KiB to 1 GiB."""


class Metrics:
    """What was counted since the daemon started, and what is asked of it when it is scraped."""

    def __init__(self, version: str) -> None:
        """Counts nothing yet."""
        # When a series began is of no use here, and doubles what is read.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's omission
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        Info("tagsync_build", "Which tagsync this is.", registry=self._registry).info(
            {"version": version}
        )
        self._polls = self._counter("tagsync_polls", "Polls.", "outcome")
        self._changes = self._counter("tagsync_changes", "Changes that were recorded.", "kind")
        self._requests = self._counter("tagsync_requests", "Requests of polls to a registry.")
        self._discoveries = self._counter("tagsync_discoveries", "Expansions of globs.", "outcome")
        self._overruns = self._counter(
            "tagsync_overruns", "Polls that were still under way when they were due again."
        )
        self._seconds = self._histogram(
            "tagsync_poll_duration_seconds", "How long polls took.", _SECONDS
        )
        self._delay = self._histogram(
            "tagsync_poll_delay_seconds", "How long after they were due polls began.", _SECONDS
        )
        self._bytes = self._histogram(
            "tagsync_listing_size_bytes", "How large listings were, all pages together.", _BYTES
        )
        self._reload = Gauge(
            "tagsync_config_last_reload_successful",
            "Whether the configuration in force is the one that was last asked for.",
            registry=self._registry,
        )
        self._reload.set(1)

    def expect(self, registry: str) -> None:
        """Shows a registry's counters as zero, so that the first failure is an increase."""
        for outcome in get_args(PollOutcome):
            self._polls.labels(registry, outcome)
        for kind in get_args(Kind):
            self._changes.labels(registry, kind)
        self._requests.labels(registry)
        self._overruns.labels(registry)

    def polled(self, poll: Poll, delay: float) -> None:
        """Counts a poll, and how many seconds after it was due it began."""
        name = poll.repository.registry
        self._polls.labels(name, poll.outcome).inc()
        for kind in get_args(Kind):
            self._changes.labels(name, kind).inc(getattr(poll, kind))
        self._requests.labels(name).inc(poll.requests)
        self._seconds.labels(name).observe(poll.seconds)
        self._delay.labels(name).observe(delay)
        if poll.outcome != "failed":
            self._bytes.labels(name).observe(poll.size)

    def overran(self, registry: str) -> None:
        """Counts a poll that was still under way when it was due again."""
        self._overruns.labels(registry).inc()

    def discovered(self, registry: str, *, failed: bool) -> None:
        """Counts an expansion of a watch's globs."""
        self._discoveries.labels(registry, "failed" if failed else "ok").inc()

    def reloaded(self, *, failed: bool) -> None:
        """Notes whether the configuration that was asked for is in force."""
        self._reload.set(not failed)

    def ask(self, census: Callable[[], Sequence[Census]]) -> None:
        """Sets who is asked how the repositories are, at each scrape."""
        self._registry.register(_CensusCollector(census))

    def application(self, health: Callable[[], Sequence[str]]) -> Application:
        """The WSGI application that answers ``/metrics`` and ``/healthz``.

        Args:
            health: tells what is wrong, a sentence each; nothing when all is well.
        """
        metrics: Application = make_wsgi_app(self._registry)

        def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            match environ["PATH_INFO"]:
                case "/metrics":
                    return metrics(environ, start_response)
                case "/healthz":
                    wrong = health()
                    status = "503 Service Unavailable" if wrong else "200 OK"
                    return _text(status, "\n".join(wrong) or "ok", start_response)
                case _:
                    return _text("404 Not Found", "/metrics or /healthz", start_response)

        return answer

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(name, what, ("registry", *labels), registry=self._registry)

    def _histogram(self, name: str, what: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(name, what, ("registry",), buckets=buckets, registry=self._registry)


class _CensusCollector(Collector):
    def __init__(self, census: Callable[[], Sequence[Census]]) -> None:
        self._census = census

    def describe(self) -> Iterable[Metric]:
        """Names the metrics without asking for them: the daemon may not be up yet."""
        return self._families()

    def collect(self) -> Iterable[Metric]:
        repositories, tags, failing, stale, oldest = families = self._families()
        for count in self._census():
            name = [count.registry]
            repositories.add_metric(name, count.repositories)
            tags.add_metric(name, count.tags)
            failing.add_metric(name, count.failing)
            stale.add_metric(name, count.stale)
            if count.oldest is not None:
                oldest.add_metric(name, count.oldest.timestamp())
        return families

    def _families(self) -> list[GaugeMetricFamily]:
        described = {
            "tagsync_repositories": "Repositories that are watched.",
            "tagsync_tags": "Tags that they have.",
            "tagsync_failing_repositories": "Repositories whose last poll failed.",
            "tagsync_stale_repositories": "Repositories without a complete listing for three"
            " intervals.",
            "tagsync_oldest_complete_listing_timestamp_seconds": "When the repository that was not"
            " seen for longest was last listed in full; one that never was is stale, and not here.",
        }
        return [GaugeMetricFamily(*each, labels=["registry"]) for each in described.items()]


def _text(status: str, text: str, start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = "".join(f"{escape_control_characters(line)}\n" for line in text.splitlines()).encode()
    start_response(
        status,
        [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("X-Content-Type-Options", "nosniff"),
            ("Cache-Control", "no-store"),
        ],
    )
    return [body]

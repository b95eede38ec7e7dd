"""The metrics, as Prometheus reads them."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from tagsync.daemon.health import Census
from tagsync.daemon.metrics import Metrics
from tagsync.database.usage import DiskUsage
from tagsync.models import Repository
from tagsync.polling.jobs import Poll

NOON = datetime(2026, 5, 3, 12, 0, tzinfo=UTC)
REPOSITORY = Repository("a", "team/api")

Values = dict[tuple[str, str], float]


def scrape(metrics: Metrics) -> Values:
    """The values of tagsync's own metrics, by name and all labels but the registry."""

    def start_response(status: str, _: Any) -> Callable[..., None]:
        assert status == "200 OK"
        return lambda *_: None

    environ = {"PATH_INFO": "/metrics", "REQUEST_METHOD": "GET"}
    text = b"".join(metrics.exposition()(environ, start_response)).decode()
    return {
        (
            sample.name,
            " ".join(v for k, v in sample.labels.items() if k != "registry"),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("tagsync_")
    }


def test_a_registry_begins_with_zeros() -> None:
    """All counters of a registry are exported before its first poll."""
    metrics = Metrics("1.2.3")
    metrics.add_registry("a")
    values = scrape(metrics)
    assert values.pop(("tagsync_build_info", "1.2.3")) == 1
    assert values.pop(("tagsync_config_last_reload_successful", "")) == 1
    assert values.pop(("tagsync_pending_log_lines", "")) == 0
    assert values.pop(("tagsync_open_immutable_changes", "")) == 0
    assert values.pop(("tagsync_last_heads_logged_timestamp_seconds", "")) == 0
    assert values == {
        **{("tagsync_polls_total", outcome): 0 for outcome in ("ok", "failed", "held", "dropped")},
        **{("tagsync_changes_total", kind): 0 for kind in ("added", "updated", "deleted")},
        ("tagsync_requests_total", ""): 0,
        ("tagsync_overruns_total", ""): 0,
    }


def test_polls_are_counted_with_their_changes_and_costs() -> None:
    """A poll adds to all metrics; a failed one adds no size of a listing."""
    metrics = Metrics("test")
    good = Poll(
        REPOSITORY, "ok", added=3, updated=2, deleted=1, requests=4, size=5000, seconds=0.75
    )
    metrics.count_poll(good, 0.25)
    metrics.count_poll(Poll(REPOSITORY, "failed", requests=1, seconds=0.5), 0.5)
    metrics.count_overrun("a")
    metrics.count_discovery("a", failed=True)
    metrics.count_discovery("a", failed=False)
    metrics.set_reload(failed=True)
    values = scrape(metrics)
    expected = {
        ("tagsync_polls_total", "ok"): 1,
        ("tagsync_polls_total", "failed"): 1,
        ("tagsync_changes_total", "added"): 3,
        ("tagsync_changes_total", "updated"): 2,
        ("tagsync_changes_total", "deleted"): 1,
        ("tagsync_requests_total", ""): 5,
        ("tagsync_overruns_total", ""): 1,
        ("tagsync_discoveries_total", "failed"): 1,
        ("tagsync_discoveries_total", "ok"): 1,
        ("tagsync_poll_duration_seconds_sum", ""): 1.25,
        ("tagsync_poll_delay_seconds_sum", ""): 0.75,
        ("tagsync_listing_size_bytes_sum", ""): 5000,
        ("tagsync_listing_size_bytes_count", ""): 1,
        ("tagsync_config_last_reload_successful", ""): 0,
    }
    assert {key: values[key] for key in expected} == expected


def test_the_repositories_are_counted_on_each_scrape() -> None:
    """Gauges have the counts of the moment; an age that is unknown is left out."""
    metrics = Metrics("test")
    counts: list[Census] = []
    metrics.collect_from(lambda: counts)
    assert ("tagsync_repositories", "") not in scrape(metrics)
    counts.append(Census("a", repositories=3, tags=14, failing=1, stale=2, empty=4, oldest=None))
    oldest = ("tagsync_oldest_complete_listing_timestamp_seconds", "")
    values = scrape(metrics)
    assert values["tagsync_repositories", ""] == 3
    assert values["tagsync_tags", ""] == 14
    assert values["tagsync_failing_repositories", ""] == 1
    assert values["tagsync_stale_repositories", ""] == 2
    assert values["tagsync_empty_watches", ""] == 4
    assert oldest not in values
    counts[:] = [
        Census("a", repositories=3, tags=14, failing=1, stale=2, empty=4, oldest=NOON, held=5)
    ]
    counts[0] = replace(counts[0], distrusted=6)
    values = scrape(metrics)
    assert values[oldest] == NOON.timestamp()
    assert values["tagsync_held_repositories", ""] == 5
    assert values["tagsync_distrusted_lists", ""] == 6


def test_the_space_of_the_database_is_exported_once_it_is_known() -> None:
    """No gauge says 0 bytes before the first measurement; then each has its own size."""
    metrics = Metrics("test")
    assert not [name for name, _ in scrape(metrics) if name.startswith("tagsync_database_")]
    metrics.set_disk_usage(DiskUsage(database=1, wal=2, free=3, file_system=4))
    metrics.set_disk_usage(DiskUsage(database=10, wal=20, free=30, file_system=40))
    values = scrape(metrics)
    assert {name: values[name, ""] for name, _ in values if "_database_" in name} == {
        "tagsync_database_size_bytes": 10,
        "tagsync_database_wal_size_bytes": 20,
        "tagsync_database_free_bytes": 30,
        "tagsync_database_filesystem_size_bytes": 40,
    }


def test_pending_log_lines_alarms_and_the_time_of_logged_heads_are_exported() -> None:
    """The gauges have the last value that was set."""
    metrics = Metrics("test")
    metrics.set_pending_log_lines(7)
    metrics.set_open_immutable_changes(3)
    metrics.set_heads_logged(NOON)
    values = scrape(metrics)
    assert values["tagsync_pending_log_lines", ""] == 7
    assert values["tagsync_open_immutable_changes", ""] == 3
    assert values["tagsync_last_heads_logged_timestamp_seconds", ""] == NOON.timestamp()

"""The monitoring files name only what exists, and each alert has a test and a runbook."""

import json
import re
from datetime import UTC, datetime
from typing import Final

import pytest

from tagsync.daemon.health import Census
from tagsync.daemon.metrics import Metrics
from tagsync.database.usage import DiskUsage
from tagsync.database.verifications import Verification
from tagsync.notify.status import DestinationStatus
from tests.support.paths import ROOT

NOON: Final = datetime(2026, 5, 3, 12, 0, tzinfo=UTC)
ALERTS: Final = (ROOT / "deploy/prometheus/alerts.yaml").read_text()
RUNBOOK: Final = (ROOT / "docs/monitoring.md").read_text()
DASHBOARD: Final = json.loads((ROOT / "deploy/grafana/tagsync.json").read_text())

OPS: Final = DestinationStatus(
    "ops", "webhook", 1, 1, 0, 0, 1, 0, None, None, None, "2026-05-03T12:00:00.000Z", None
)
"""A destination of notifications."""


def exported() -> set[str]:
    """The names of all metrics that a daemon exports, with those of histograms' series."""
    metrics = Metrics("test")
    metrics.add_registry("a")
    metrics.add_hints("a")
    metrics.count_discovery("a", failed=False)
    metrics.set_disk_usage(DiskUsage(1, 2, 3, 4))
    metrics.set_verification(Verification("2026-05-03T12:00:00.000Z", "ok", 1.0, None))
    metrics.collect_from(lambda: [Census("a", 1, 1, 0, 0, 0, NOON)])
    metrics.collect_destinations_from(lambda: [OPS])
    environ = {"PATH_INFO": "/metrics", "REQUEST_METHOD": "GET"}
    text = b"".join(metrics.exposition()(environ, lambda *_: lambda *_: None)).decode()
    families = re.findall(r"^# TYPE (\w+) histogram$", text, re.MULTILINE)
    histograms = {f"{name}_bucket" for name in families} | set(families)
    return histograms | set(re.findall(r"^(\w+)[{ ]", text, re.MULTILINE))


def named(text: str) -> set[str]:
    """The metrics that a text names."""
    return set(re.findall(r"\b(?:tagsync|process)_\w+", text))


def alerts() -> list[str]:
    """The names of all alerts."""
    return re.findall(r"- alert: (\w+)", ALERTS)


def expressions() -> str:
    """All expressions of the alerts and the dashboard."""
    targets = [each for panel in DASHBOARD["panels"] for each in panel.get("targets", ())]
    return "\n".join([ALERTS, *(target["expr"] for target in targets)])


def test_alerts_and_dashboard_name_only_metrics_that_exist() -> None:
    """A renamed metric leaves neither an alert nor a panel without data."""
    assert named(expressions()) <= exported()


def test_the_documentation_lists_all_metrics() -> None:
    """Each metric of tagsync is in the table, and the table has no other."""
    page = (ROOT / "docs/service.md").read_text()
    own = {name for name in exported() if name.startswith("tagsync_")}
    parts = {name for name in own if re.search(r"_(bucket|sum|count)$", name)}
    assert own - parts - {"tagsync_build_info"} == named(page) - {"tagsync_build_info"}


@pytest.mark.parametrize("alert", alerts())
def test_each_alert_has_a_test_and_a_runbook(alert: str) -> None:
    """The tests let each alert fire, and its annotation names a section that exists."""
    tests = (ROOT / "deploy/prometheus/alerts_test.yaml").read_text()
    assert re.search(rf"alertname: {alert}\n +exp_alerts:\n", tests)
    assert f"\n### {alert}\n" in RUNBOOK
    assert f"runbook: docs/monitoring.md#{alert.lower()}\n" in ALERTS


def test_each_runbook_belongs_to_an_alert() -> None:
    """The page has no section of an alert that does not exist."""
    assert re.findall(r"^### (Tagsync\w+)$", RUNBOOK, re.MULTILINE) == alerts()


def test_no_monitoring_file_has_the_address_of_a_host() -> None:
    """The files contain no URL, so that nothing depends on a place outside."""
    assert "://" not in ALERTS + json.dumps(DASHBOARD)

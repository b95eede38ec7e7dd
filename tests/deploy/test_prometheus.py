"""The alerts and the dashboard, with Debian's Prometheus and a real daemon."""

import json
import re
import subprocess
from typing import Final

import pytest

from tests.support.docker_registry import require
from tests.support.documents import fenced_blocks, section
from tests.support.paths import ROOT
from tests.support.prometheus import SHIPPED, Prometheus

pytestmark = pytest.mark.processes

DASHBOARD: Final = json.loads((ROOT / "deploy" / "grafana" / "tagsync.json").read_text())
VARIABLES: Final = {"$job": "tagsync", "$instance": ".*", "$__rate_interval": "5s"}
"""What Grafana would put into the queries."""


def queries() -> dict[str, str]:
    """The queries of all panels, by the title of the panel and the letter of the query."""
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", ())
    }


def test_the_alerts_are_correct() -> None:
    """The documented commands find no error, and each alert fires exactly when its tests say."""
    require("promtool")
    (block,) = fenced_blocks(section("docs/monitoring.md", "Prometheus"), "sh")
    done = subprocess.run(
        ["bash", "-euxc", block], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.count("SUCCESS")) == (0, 2), done.stdout + done.stderr


@pytest.mark.parametrize("name", queries())
def test_each_query_of_the_dashboard_has_data(name: str, prometheus: Prometheus) -> None:
    """Prometheus answers each query of each panel with numbers."""
    query = queries()[name]
    for variable, value in VARIABLES.items():
        query = query.replace(variable, value)
    assert "$" not in query
    prometheus.await_data(query)


def test_each_variable_of_the_dashboard_has_values(prometheus: Prometheus) -> None:
    """The lists of jobs and instances come from a metric that has these labels."""
    prometheus.await_data("tagsync_build_info")
    for variable in DASHBOARD["templating"]["list"][1:]:
        match = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"])
        assert match
        (series,) = prometheus.get("series", **{"match[]": match[1]})
        assert series[match[2]]


def test_prometheus_evaluates_each_alert(prometheus: Prometheus) -> None:
    """A real Prometheus loads the alerts, and each expression evaluates without an error."""
    names = re.findall(r"- alert: (\w+)", (SHIPPED / "alerts.yaml").read_text())
    prometheus.await_health(dict.fromkeys(names, "ok"))

"""Measure whether the daemon polls many repositories on time.

``python -m tests.benchmarks.daemon`` runs a real ``tagsync run`` on 5,000 repositories of 20 tags
with an interval of a minute, beside an emulated registry on the same machine. It prints how late
polls began, what they cost, and how many were missed.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.measure import TAGSYNC

CONFIG = """
[schedule]
interval = "{interval}s"
jitter = "1ms"
[metrics]
listen = "127.0.0.1:{port}"
[[registries]]
name = "swr"
endpoint = "{endpoint}"
requests_per_second = 1000
[[registries.watch]]
repositories = ["team/*"]
"""

SERVER = """
import sys
from tagsync.emulator import Emulator
repositories, tags = map(int, sys.argv[1:])
with Emulator() as swr:
    for repository in range(repositories):
        for tag in range(tags):
            swr.push(f"team/r{repository}", f"v{tag}", f"build {repository} {tag}")
    print(swr.url, flush=True)
    sys.stdin.read()
"""


@contextmanager
def started(*command: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a process, and terminate it after the block."""
    with (
        (folder / "stderr").open("a") as stderr,
        subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            process.wait(timeout=30)


def scrape(port: int) -> dict[str, float]:
    """Return the daemon's metrics by name with labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def await_first_listings(port: int, repositories: int, seconds: float) -> None:
    """Wait until every repository was listed once.

    Raises:
        TimeoutError: If it takes longer than this many seconds.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(1)
        try:
            found = scrape(port)
        except OSError:
            continue
        if found.get('tagsync_changes_total{kind="added",registry="swr"}', 0) and (
            found['tagsync_repositories{registry="swr"}'] == repositories
            and found['tagsync_polls_total{outcome="ok",registry="swr"}'] >= repositories
        ):
            return
    raise TimeoutError(f"after {seconds} s not every repository was listed")


def lateness(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, int]:
    """Return how many polls were late, by the upper bound of the delay in seconds."""
    bounds: dict[str, int] = {}
    counted = 0
    for name, value in after.items():
        if match := re.fullmatch(r'tagsync_poll_delay_seconds_bucket\{le="(.+)",.*\}', name):
            total = int(value - before[name])
            if total > counted:
                bounds[match[1]] = total - counted
                counted = total
    return bounds


def main() -> None:
    """Run the benchmark and print its figures as a JSON object."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--repositories", type=int, default=5000)
    parser.add_argument("--tags", type=int, default=20)
    parser.add_argument("--interval", type=int, default=60, help="seconds")
    parser.add_argument("--intervals", type=int, default=3, help="how many intervals to measure")
    parser.add_argument("--port", type=int, default=9181, help="the port of the metrics")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = (str(options.repositories), str(options.tags))
        with started(sys.executable, "-c", SERVER, *sizes, folder=folder) as server:
            assert server.stdout
            endpoint = server.stdout.readline().strip()
            text = CONFIG.format(endpoint=endpoint, **vars(options))
            (folder / "config.toml").write_text(text)
            with started(*TAGSYNC, "run", folder=folder):
                began = time.monotonic()
                await_first_listings(options.port, options.repositories, 10 * options.interval)
                first = time.monotonic() - began
                # Polls that became due during the expensive first listings are finished after this.
                time.sleep(options.interval)
                before = scrape(options.port)
                time.sleep(options.interval * options.intervals)
                after = scrape(options.port)
    grown = {key: value - before.get(key, 0) for key, value in after.items()}
    figures = {
        "repositories": options.repositories,
        "first listings took, seconds": round(first),
        "polls": int(grown['tagsync_polls_total{outcome="ok",registry="swr"}']),
        "failed": int(grown['tagsync_polls_total{outcome="failed",registry="swr"}']),
        "missed": int(grown['tagsync_overruns_total{registry="swr"}']),
        "late by at most, seconds": lateness(before, after),
        "processor seconds a minute": round(
            grown["process_cpu_seconds_total"] / options.intervals / options.interval * 60, 1
        ),
        "memory MiB": round(after["process_resident_memory_bytes"] / 2**20),
        "cores": os.cpu_count(),
    }
    print(json.dumps(figures, indent=2))  # noqa: T201  the figures are the point


if __name__ == "__main__":
    main()

"""``python -m tests.benchmarks.lists``: idle polls of registries with lists of their own.

Each registry is emulated on loopback, answers after a fixed time, and has one repository. Its first
polls are not measured: they find the list, and record the tags. The emulator shares the processor
with tagsync, so a real registry with the same round trip is faster.
"""

import sys
import time
from statistics import median
from typing import Final, NamedTuple

import click

from tagsync.emulator.oci import Acr, DockerHub, GitLab, Google, Harbor, OciEmulator, Quay, Zot
from tests.benchmarks.measure import machine
from tests.support.clock import FakeClock
from tests.support.lists import ListedRegistry, fill

LARGE, SMALL = 1000, 100
"""The number of rows of a page of a list."""

LIMITS: Final = {LARGE: 0.3, SMALL: 1.0}
"""The longest time of an idle poll of 1,000 tags, in seconds, by the rows of a page."""

VENDORS: Final = {
    "GitLab": (GitLab, LARGE, LARGE),
    "Google": (Google, LARGE, LARGE),
    "Azure": (Acr, LARGE, LARGE),
    "Harbor": (Harbor, SMALL, LARGE),
    "zot": (Zot, LARGE, LARGE),
    "Quay": (Quay, SMALL, SMALL),
    "Docker Hub": (DockerHub, SMALL, LARGE),
}
"""Each emulated registry, with the rows of a page of its list, and the names of one of
``tags/list``."""


class Polls(NamedTuple):
    """Polls of one registry.

    Attributes:
        source: Where the digests came from.
        requests: Average number of requests of a poll.
        seconds: The time of each poll.
    """

    source: str | None
    requests: float
    seconds: list[float]


def measure(
    emulator: OciEmulator, tags: int, polls: int, connections: int, *, has_list: bool
) -> Polls:
    """Measure idle polls of a registry."""
    seconds, requests = [], []
    with emulator:
        fill(emulator, tags)
        lists = None if has_list else ()
        registry = ListedRegistry(emulator, FakeClock(), lists=lists, concurrency=connections)
        for _ in range(2):
            listing = registry.poll()
        for _ in range(polls):
            began = time.perf_counter()
            listing = registry.poll()
            seconds.append(time.perf_counter() - began)
            requests.append(registry.requests)
        registry.close()
    return Polls(listing.source, sum(requests) / polls, seconds)


@click.command()
@click.option("--tags", default=1000, show_default=True, help="How many tags there are.")
@click.option("--latency", default=20, show_default=True, help="Milliseconds of each request.")
@click.option("--polls", default=11, show_default=True, help="How many idle polls are measured.")
@click.option("--connections", default=8, show_default=True, help="How many HEADs at a time.")
def main(*, tags: int, latency: int, polls: int, connections: int) -> None:
    """Print a table in Markdown, and fail if a poll of 1,000 tags takes too long."""
    click.echo(
        f"{machine()}; {tags} tags, {latency} ms a request, {connections} connections, medians of"
        f" {polls} polls.\n"
    )
    click.echo("| registry | rows of a page | requests | seconds | slowest |")
    click.echo("|---|---|---|---|---|")
    late = []
    for name, (vendor, rows, names) in VENDORS.items():
        emulator = OciEmulator(vendor(), page=names, latency=latency / 1000)
        found = measure(emulator, tags, polls, connections, has_list=True)
        _show(name, f"{rows:,}", found)
        if found.source == "head" or median(found.seconds) > LIMITS[rows]:
            late.append(name)
    emulator = OciEmulator(GitLab(), latency=latency / 1000)
    heads = measure(emulator, tags, max(1, polls // 3), connections, has_list=False)
    _show("by `HEAD`", "", heads)
    sys.exit(f"too slow, or without a list: {', '.join(late)}" if late else 0)


def _show(name: str, rows: str, found: Polls) -> None:
    took = f"{median(found.seconds):.2f} | {max(found.seconds):.2f}"
    click.echo(f"| {name} | {rows} | {found.requests:.0f} | {took} |")


if __name__ == "__main__":
    main()

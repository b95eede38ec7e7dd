"""How large the database gets in a year, from some days on a clock of the benchmark.

``python -m tests.benchmarks.years`` records days of polls of registries in memory, and
prints how much the file grew a day. The number of polls a day matters little, because polls with
the same result share a row; a few stand for many.
"""

import argparse
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Final, NamedTuple

import click
import msgspec
import structlog

from tagsync.clock import timestamp
from tagsync.database.store import Store
from tagsync.errors import Unreachable
from tagsync.manifests import listed_image
from tagsync.models import Image, Listing, Repository, Tag
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tests.benchmarks import data
from tests.support.clock import FakeClock
from tests.support.record import query
from tests.support.registries import Scripted

TAGS: Final = 100
"""Tags in each repository."""

MEGABYTE: Final = 1_000_000
_TABLES: Final = ("changes", "images", "observations")


class Scenario(NamedTuple):
    """What is recorded each day.

    Attributes:
        moved: Tags of each repository that move to another image.
        polls: Polls of each repository.
        failures: The share of polls that fail, at random.
        kind: ``swr`` for rows with all fields and a manifest, ``oci`` for names and digests.
    """

    repositories: int
    moved: int
    polls: int
    failures: float
    kind: str


SCENARIOS: Final = (
    Scenario(1000, 1, 2, 0.0, "swr"),
    Scenario(1000, 10, 2, 0.0, "swr"),
    Scenario(100, 1, 24, 0.2, "oci"),
    Scenario(100, 10, 24, 0.2, "oci"),
)


def swr_tag(row: dict[str, object]) -> tuple[Tag, Image]:
    """Return the tag and the image of a row of SWR's list."""
    names = {"registry_id": "id", "registry_repo_id": "repo_id", "tag": "Tag"}
    columns = {name: row[names.get(name, name)] for name in Tag.__struct_fields__}
    tag = msgspec.convert(columns, Tag)
    manifest = str(row["manifest"])
    assert tag.digest is not None
    return tag, listed_image(
        tag.digest, manifest, image_id=tag.image_id, schema=tag.schema, size=tag.size
    )


def oci_tag(row: dict[str, object]) -> tuple[Tag, Image]:
    """Return the tag and the image of an OCI registry, without its manifest."""
    digest = str(row["digest"])
    return Tag(str(row["Tag"]), digest), Image(digest, media_type=data.MEDIA_TYPE)


def listing(name: str, moved: int, kind: str, now: str) -> Listing:
    """Return a complete listing after this number of moves."""
    convert: Callable[[dict[str, object]], tuple[Tag, Image]]
    convert = swr_tag if kind == "swr" else oci_tag
    rows = msgspec.json.decode(data.listing(name, TAGS, moved=moved), type=list[dict[str, object]])
    tags = [convert(row) for row in rows]
    images = {image.digest: image for _, image in tags}
    return Listing({tag.tag: tag for tag, _ in tags}, images, now, now, fingerprint=None)


def record_day(store: Store, clock: FakeClock, random: Random, day: int, what: Scenario) -> None:
    """Record the polls of a day. All moves of the day are in its first listing."""
    registry = Scripted(clock)
    interval = timedelta(days=1) / what.polls
    for number in range(what.repositories):
        name = data.repository(number)
        job = Job(Repository("r", name), registry, interval)
        began = clock.now
        for _ in range(what.polls):
            if day and random.random() < what.failures:
                registry.script.append(Unreachable("https://registry.example: no connection"))
            else:
                registry.script.append(
                    listing(name, day * what.moved, what.kind, timestamp(clock.now))
                )
            poll(job, store, clock=clock)
            clock.now += interval
        clock.now = began
    clock.advance(days=1)


def counts(path: Path) -> dict[str, int]:
    """Return the size of the file in bytes, and the rows of its largest tables."""
    rows = {name: query(path, f"SELECT count(*) FROM {name}")[0][0] for name in _TABLES}
    return {"bytes": path.stat().st_size, **rows}


def measure(folder: Path, what: Scenario, days: int) -> None:
    """Print the size after the first two days, and how much each later day and a year add."""
    path, clock, random = folder / "tagsync.db", FakeClock(), Random(1)
    clock.now = clock.now.replace(hour=0, minute=1)
    began = perf_counter()
    found: list[dict[str, int]] = []
    for day in range(days):
        with Store.open(path) as store:
            record_day(store, clock, random, day, what)
        found.append(counts(path))
    first, last = found[1], found[-1]
    daily = {name: (last[name] - first[name]) / (days - 2) for name in last}
    at_first, a_day = found[0]["bytes"] / MEGABYTE, daily["bytes"] / MEGABYTE
    rows = ", ".join(f"{daily[name]:.0f} {name}" for name in _TABLES)
    click.echo(
        f"{what}: {at_first:.0f} MB at first, {a_day:.2f} MB a day,"
        f" {a_day * 365 / 1000:.2f} GB a year; rows a day: {rows} ({perf_counter() - began:.0f} s)"
    )


def main() -> None:
    """Measure in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--kind", choices=["swr", "oci"])
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    for what in SCENARIOS:
        if options.kind not in {None, what.kind}:
            continue
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), what, options.days)


if __name__ == "__main__":
    main()

"""Measure how long the pages of ``tagsync web`` take on a generated record of full size.

``python -m tests.benchmarks.pages`` takes about ten minutes and 5 GB in a temporary folder. With
``--database FILE`` it uses the record that an earlier run left there. For each page it prints the
processor time of the server in milliseconds, which hardly depends on the load of the machine, and
the elapsed time: the first request, and the median and the slowest of five more.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from typing import Final
from urllib.parse import urlencode

import httpx

from tagsync.audit.questions import QUESTIONS
from tagsync.database.connection import connect_for_reading
from tests.benchmarks import year

REPEATS: Final = 5
RANGES: Final = ("1d", "30d", "1y", "all")


def addresses(path: Path) -> Mapping[str, str]:
    """Return the address of each page to measure, by what it shows."""
    with closing(connect_for_reading(path)) as db:
        ((image, base, own),) = db.execute(
            "SELECT digest, json_extract(manifest, '$.layers[0].digest'),"
            " json_extract(manifest, '$.layers[7].digest') FROM images WHERE id = 1000"
        ).fetchall()
        past, end = db.execute(
            "SELECT max(observed_at) FILTER (WHERE id = (SELECT max(id) FROM changes) / 2),"
            " max(observed_at) FROM changes WHERE id >= (SELECT max(id) FROM changes) / 2"
        ).fetchone()
    pages = {
        "front page": "/",
        "front page, at a moment": _url("/", at=past),
        "changes": "/changes",
        "changes until a day": _url("/changes", day=past[:10]),
        "repositories": "/repositories",
        "coverage, 30 days": "/coverage?range=30d",
        "coverage, everything": "/coverage?range=all",
        "gaps, a week": "/gaps?range=7d",
        "gaps, everything": "/gaps?range=all",
        "image": _url("/image", digest=image),
        "layer of one image": _url("/layer", digest=own),
        "layer of many images": _url("/layer", digest=base),
        "search by name": "/search?q=service-99",
        "search by tag": "/search?q=latest",
        "search by digest": _url("/search", q=image),
        "search by its beginning": _url("/search", q=image[7:19]),
        "search by a base layer": _url("/search", q=base),
        "search by a base layer, at a moment": _url("/search", q=base, at=past),
        "difference of all": _url("/difference", pattern="*", **{"from": past}),
    }
    for kind, number in (("busy", 0), ("ordinary", 428)):
        name = year.repository_of(number).full_name
        pages |= _of_repository(f"{kind} repository", name, past, end)
    busy = year.repository_of(0).full_name
    return pages | _of_datasette() | _of_questions(base, busy)


def _of_repository(kind: str, name: str, past: str, end: str) -> dict[str, str]:
    repository = {
        f"{kind}, {span}": _url("/repository", name=name, range=span, until=end) for span in RANGES
    }
    return repository | {
        f"{kind}, at a moment": _url("/repository", name=name, at=past),
        f"{kind}, difference": _url("/difference", repository=name, **{"from": past}),
        f"{kind}, tag": _url("/tag", repository=name, tag="latest", range="all"),
        f"{kind}, tag at a moment": _url("/tag", repository=name, tag="latest", at=past),
        f"{kind}, report": _url("/report", pattern=name),
        f"{kind}, report on a tag": _url("/report", pattern=f"{name}:latest"),
    }


def _of_datasette() -> dict[str, str]:
    tables = (
        *("repositories", "tags", "changes", "images", "observations", "current_tags"),
        *("change_log", "tag_history", "tag_moves", "image_layers", "image_platforms"),
    )
    return {
        "list of tables": "/tagsync",
        **{f"table {name}": f"/tagsync/{name}" for name in tables},
        "table changes, by kind": "/tagsync/changes?_facet=kind",
        "row of changes": "/tagsync/changes/1000",
        **{f"question {question.slug}": f"/tagsync/{question.slug}" for question in QUESTIONS},
    }


def _of_questions(base: str, busy: str) -> dict[str, str]:
    """Return the questions that need a value, with one: a base layer, and the busy repository."""
    images = "/tagsync/same-image-elsewhere"
    return {
        "question tags-with-layer, of many images": _url("/tagsync/tags-with-layer", layer=base),
        "question same-image-elsewhere, busy": _url(images, repository=busy),
        "question same-image-elsewhere, of all": _url(images, repository="*"),
        "question holes, 30 days": _url("/tagsync/holes", days="30"),
        "question holes, busy": _url("/tagsync/holes", repository=busy, days="0"),
    }


def _url(path: str, **parameters: str) -> str:
    return f"{path}?{urlencode(parameters)}"


@contextmanager
def serving(path: Path, folder: Path) -> Iterator[tuple[str, int]]:
    """Serve the pages, and yield their address and the id of the process."""
    config = folder / "config.toml"
    config.write_text(
        f'[store]\npath = "{path}"\n'
        '[[registries]]\nname = "swr"\nendpoint = "http://127.0.0.1:9"\n'
        '[[registries.watch]]\nrepositories = ["*/*"]\n'
        '[[registries]]\nname = "oci"\nkind = "oci"\nendpoint = "http://127.0.0.1:9"\n'
    )
    command = (sys.executable, "-m", "tagsync", "--config", str(config), "web", "--port", "0")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().strip().rstrip("/"), process.pid
        finally:
            process.terminate()


def measure(client: httpx.Client, address: str, pid: int) -> tuple[list[float], list[float]]:
    """Request a page, and return the milliseconds of the processor and of the clock."""
    clock = ~pid << 3 | 2  # Linux: the processor time of all threads of the process
    worked, took = [], []
    for _ in range(1 + REPEATS):
        began, before = time.perf_counter(), time.clock_gettime(clock)
        client.get(address).raise_for_status()
        took.append(1000 * (time.perf_counter() - began))
        worked.append(1000 * (time.clock_gettime(clock) - before))
    return worked, took


def main() -> None:
    """Create the record if necessary, and measure the pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repositories", type=int, default=1000)
    parser.add_argument("--tags", type=int, default=1000, help="of each repository")
    parser.add_argument("--changes", type=int, default=5_000_000)
    parser.add_argument("--images", type=int, default=500_000)
    parser.add_argument("--database", type=Path, help="the record; created if it does not exist")
    given = parser.parse_args()
    shape = year.Shape(given.repositories, given.tags, given.changes, given.images)
    with tempfile.TemporaryDirectory(prefix="tagsync-benchmark-") as folder:
        path = given.database or Path(folder) / "tagsync.db"
        if not path.exists():
            year.fill(path, shape)
        print(f"{'milliseconds':45} {'processor: first, median, slowest':>35} {'elapsed':>27}")  # noqa: T201  a figure
        with serving(path, Path(folder)) as (base, pid), httpx.Client(base_url=base) as client:
            client.timeout, client.follow_redirects = httpx.Timeout(60), True
            for name, address in addresses(path).items():
                figures = [
                    f"{times[0]:8.0f} {median(times[1:]):8.0f} {max(times[1:]):8.0f}"
                    for times in measure(client, address, pid)
                ]
                print(f"{name:45} {figures[0]:>35} {figures[1]:>27}", flush=True)  # noqa: T201  a figure


if __name__ == "__main__":
    main()

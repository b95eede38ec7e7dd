"""Measure how long an audit query takes on a generated record of full size.

``python -m tests.benchmarks.audit --tags 1000000 --changes 5000000`` takes some minutes and 10 GB
in a temporary folder. For each query it prints three times in milliseconds: the median, the slowest
and the processor time, which does not depend on the load of the machine.
"""

import argparse
import json
import resource
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from random import Random
from statistics import median
from time import perf_counter, process_time
from typing import Final

from tagsync.audit.change_log import ChangeFilter
from tagsync.audit.queries import Audit
from tagsync.clock import timestamp
from tagsync.database import hash_chain
from tagsync.database.connection import connect
from tagsync.database.digest_index import index_images
from tagsync.database.state import RepositoryState, row_values
from tagsync.models import Repository
from tests.support.record import recount_days

TAGS_OF_A_REPOSITORY: Final = 1000
BASES: Final = 250
"""The number of base images whose layers the images share."""

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
REPEATS: Final = 20

CONFIG_SIZE: Final = 7_000
IMAGE_SIZE: Final = CONFIG_SIZE + sum(10_000 + position for position in range(8))
"""The size of each image in bytes, as its manifest states it."""

_LAYER_TYPE: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"


class Size:
    """The size of a record: ``rounds`` listings of each repository; all tags move."""

    def __init__(self, tags: int, changes: int, images: int) -> None:
        self.per_repository = min(tags, TAGS_OF_A_REPOSITORY)
        self.repositories = tags // self.per_repository
        self.rounds = max(changes // tags, 1)
        self.images = images


def digest(*parts: object) -> str:
    return f"sha256:{sha256(repr(parts).encode()).hexdigest()}"


def layer(image: int, position: int) -> str:
    """Return the digest of a layer: four belong to a base image, four to the image."""
    return digest("base", image % BASES, position) if position < 4 else digest(image, position)


def manifest(image: int) -> str:
    layers = [
        {"mediaType": _LAYER_TYPE, "size": 10_000 + position, "digest": layer(image, position)}
        for position in range(8)
    ]
    config = {"mediaType": "application/vnd.docker.container.image.v1+json", "size": CONFIG_SIZE}
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {**config, "digest": digest("config", image)},
            "layers": layers,
        }
    )


def moment(round_: int) -> str:
    return timestamp(START + timedelta(minutes=5 * round_))


def image_of(repository: int, tag: int, round_: int, size: Size) -> int:
    return (repository * 7919 + tag * 104_729 + round_ * 1_299_709) % size.images


def fill(path: Path, size: Size) -> list[str]:
    """Create the record, and return the digest of each image."""
    with closing(connect(path)) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA cache_size = -4000000")
        db.execute("BEGIN")
        names = [f"team-{n % 20}/service-{n}" for n in range(size.repositories)]
        last = moment(size.rounds - 1)
        db.executemany(
            "INSERT INTO repositories VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [repository_row(number, name, last, size) for number, name in enumerate(names, 1)],
        )
        db.executemany(
            "INSERT INTO observations (repository_id, outcome, first_at, last_at, polls, tags)"
            " VALUES (?, 'ok', ?, ?, ?, ?)",
            [
                (number, moment(0), last, size.rounds, size.per_repository)
                for number in range(1, size.repositories + 1)
            ],
        )
        texts = [manifest(image) for image in range(size.images)]
        digests = [f"sha256:{sha256(text.encode()).hexdigest()}" for text in texts]
        came = first_moments(size)
        # Images come before the changes, which refer to them.
        db.executemany(
            f"INSERT INTO images VALUES (?, ?, ?, ?, 2, {IMAGE_SIZE}, ?, 1, ?)",
            (
                (
                    number,
                    digests[n],
                    digest("config", n)[7:],
                    json.loads(texts[n])["mediaType"],
                    texts[n],
                    at,
                )
                for number, (n, at) in enumerate(came.items(), 1)
            ),
        )
        rows = db.execute("SELECT id, manifest, image_id, verified FROM images").fetchall()
        index_images(db, rows)
        insert_changes(db.executemany, names, digests, size)
        recount_days(db)
        db.execute("COMMIT")
    return [digests[n] for n in came]


def repository_row(number: int, name: str, last: str, size: Size) -> tuple[object, ...]:
    """Return a repository's row, with its checksum."""
    state = RepositoryState(
        id=number,
        first_observed_at=moment(0),
        last_attempt_at=last,
        last_complete_at=last,
        version=size.rounds,
        not_before=last,
    )
    return row_values(Repository("swr", name), state)


def first_moments(size: Size) -> dict[int, str]:
    """Return when each image was first observed, in this order."""
    came: dict[int, str] = {}
    for round_ in range(size.rounds):
        for repository in range(size.repositories):
            for tag in range(size.per_repository):
                came.setdefault(image_of(repository, tag, round_, size), moment(round_))
    return came


def insert_changes(
    executemany: Callable[..., object],
    names: list[str],
    digests: list[str],
    size: Size,
) -> None:
    """Insert the changes of every listing, and the resulting mirror."""

    def changes() -> Iterator[tuple[object, ...]]:
        head, number = hash_chain.GENESIS, 0
        for round_ in range(size.rounds):
            at, before = moment(round_), moment(round_ - 1) if round_ else None
            kind = "updated" if round_ else "added"
            for repository, name in enumerate(names):
                for tag in range(size.per_repository):
                    number += 1
                    image = image_of(repository, tag, round_, size)
                    new = digests[image]
                    old = digests[image_of(repository, tag, round_ - 1, size)] if round_ else None
                    fields = f'{{"digest":[{json.dumps(old)},"{new}"],"size":[null,{IMAGE_SIZE}]}}'
                    if round_:
                        fields = f'{{"digest":["{old}","{new}"]}}'
                    content = (f"v{tag}", kind, old, new, fields, before, at)
                    head = hash_chain.link(head, number, f"swr/{name}", *content)
                    yield (number, repository + 1, *content, head)

    executemany("INSERT INTO changes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", changes())
    last = size.rounds - 1
    executemany(
        "INSERT INTO tags (repository_id, tag, digest, size, first_observed_at, changed_at)"
        f" VALUES (?, ?, ?, {IMAGE_SIZE}, ?, ?)",
        (
            (
                *(repository + 1, f"v{tag}", digests[image_of(repository, tag, last, size)]),
                *(moment(0), moment(last)),
            )
            for repository in range(size.repositories)
            for tag in range(size.per_repository)
        ),
    )


def measure_queries(path: Path, size: Size, digests: list[str]) -> None:
    """Run each query several times with other arguments, and print the times."""
    random = Random(1)

    def repository() -> str:
        n = random.randrange(size.repositories)
        return f"swr/team-{n % 20}/service-{n}"

    def tag() -> str:
        return f"v{random.randrange(size.per_repository)}"

    def past() -> str:
        return moment(random.randrange(size.rounds))

    kinds: tuple[Callable[[int], str], ...] = (
        lambda _: random.choice(digests),
        lambda _: digest("config", random.randrange(len(digests))),
        lambda _: layer(random.randrange(len(digests)), random.randrange(4, 8)),
        lambda number: digest("unknown", number),
    )
    with Audit.open(path) as audit:
        questions: dict[str, Callable[[], object]] = {
            "a tag's history (log --tag)": lambda: list(
                audit.log([repository()], ChangeFilter(tag=tag()))
            ),
            "a repository at a moment (tags --at)": lambda: list(
                audit.tags_at([repository()], past())
            ),
            "a repository's difference (diff)": lambda: list(
                audit.diff([repository()], moment(0), past())
            ),
            "find, by manifest": lambda: list(audit.find(random.choice(digests))),
            "find, by a manifest's beginning": lambda: list(
                audit.find(random.choice(digests)[7:19])
            ),
            "find, by configuration": lambda: list(
                audit.find(digest("config", random.randrange(len(digests))))
            ),
            "find, by a layer of one image": lambda: list(
                audit.find(layer(random.randrange(len(digests)), 7))
            ),
            "find, 1,000 digests": lambda: list(
                audit.find(*(random.choice(kinds)(n) for n in range(1000)))
            ),
            "a repository's changes since (log --since)": lambda: list(
                audit.log([repository()], ChangeFilter(since=moment(size.rounds - 1)))
            ),
        }
        for name, question in questions.items():
            print_times(name, question, REPEATS)  # the first one with a cold page cache
        print_times(
            f"find, by a base layer of {len(digests) // BASES} images, first row",
            lambda: next(audit.find(layer(random.randrange(BASES), 0))),
            5,
        )
        print_times(
            f"find, by a base layer of {len(digests) // BASES} images",
            lambda: sum(1 for _ in audit.find(layer(random.randrange(BASES), 0))),
            5,
        )
        print_times("verify", lambda: [print(row) for row in audit.verify()], 1)  # noqa: T201  a figure


def print_times(name: str, question: Callable[[], object], repeats: int) -> None:
    times: list[float] = []
    worked = process_time()
    for _ in range(repeats):
        began = perf_counter()
        question()
        times.append(1000 * (perf_counter() - began))
    worked = 1000 * (process_time() - worked) / repeats
    print(f"{name:45} {median(times):10.2f} {max(times):10.2f} {worked:10.2f}", flush=True)  # noqa: T201  a figure


def main() -> None:
    """Create the record, measure the queries, and remove the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tags", type=int, default=100_000)
    parser.add_argument("--changes", type=int, default=500_000)
    parser.add_argument(
        "--images", type=int, help="distinct images; by default half as many as tags"
    )
    arguments = parser.parse_args()
    size = Size(arguments.tags, arguments.changes, arguments.images or arguments.tags // 2)
    with tempfile.TemporaryDirectory(prefix="tagsync-benchmark-") as folder:
        path = Path(folder) / "tagsync.db"
        began = perf_counter()
        digests = fill(path, size)
        mebibytes = path.stat().st_size // 2**20
        print(f"created in {perf_counter() - began:.0f} s, {mebibytes} MiB")  # noqa: T201  a figure
        print(f"{'milliseconds':45} {'median':>10} {'slowest':>10} {'processor':>10}")  # noqa: T201  a figure
        measure_queries(path, size, digests)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"peak memory {peak} MiB, mostly to create the record")  # noqa: T201  a figure


if __name__ == "__main__":
    main()

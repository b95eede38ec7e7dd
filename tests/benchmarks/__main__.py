"""``python -m tests.benchmarks``: the cost of tagsync beside a plain fetch."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import click

from tests.benchmarks import data
from tests.benchmarks.measure import TAGSYNC, Cost, Measured, cost, in_turn, machine, median_cost
from tests.benchmarks.nginx import serving
from tests.benchmarks.plot import plot

SIZES: Final = ((100, 100), (1000, 10), (1000, 100), (100, 1000), (10_000, 10), (10_000, 100))
"""Repositories, and tags in each: both grow independently."""

MAIN: Final = (1000, 100)
"""The size at which all ways are measured."""

FETCH: Final = "fetch, 1 thread"
"""The baseline of all comparisons."""

WAYS: Final = (FETCH, "first import", "idle pass", "1 % changes")
"""The ways that are measured at every size."""

DATABASE: Final = "database"

STARTS: Final = ("tagsync --help", "tagsync status")
"""Commands whose time is mostly start-up."""

HISTORY: Final = 30
"""The number of passes with changes before the last passes are measured again."""

_CONFIG: Final = """
[store]
path = "{database}"
[[registries]]
name = "swr"
endpoint = "{endpoint}"
requests_per_second = 100000
concurrency = {threads}
[registries.auth]
kind = "none"
[[registries.watch]]
repositories = [{names}]
"""


class Bench:
    """One size: a registry in two states, 1 % of the tags apart, and a database."""

    def __init__(
        self, folder: Path, urls: tuple[str, str], repositories: int, threads: int
    ) -> None:
        self.folder, self.repositories, self.threads = folder, repositories, threads
        self.urls = urls
        self._state = 0
        names = ", ".join(f'"{data.repository(number)}"' for number in range(repositories))
        for state, url in enumerate(urls):
            self._config(state).write_text(
                _CONFIG.format(database=self.database, endpoint=url, threads=threads, names=names)
            )

    @property
    def database(self) -> Path:
        return self.folder / "tagsync.db"

    def _config(self, state: int) -> Path:
        return self.folder / f"{state}.toml"

    def tagsync(self, *arguments: str, state: int = 0) -> list[str]:
        """Return a tagsync command, configured for one state of the registry."""
        return [*TAGSYNC, "--config", str(self._config(state)), *arguments]

    def sync(self, state: int) -> list[str]:
        """Return the command of a pass over one state."""
        return self.tagsync("sync", state=state)

    def fetch(self, way: str, threads: int) -> list[str]:
        """Return a command that fetches the same bytes without tagsync."""
        module = [sys.executable, "-m", "tests.benchmarks.fetch", way]
        return [*module, self.urls[0], str(self.repositories), str(threads)]

    def remove_database(self) -> None:
        """Remove the database."""
        for path in self.folder.glob("tagsync.db*"):
            path.unlink()


@contextmanager
def bench(repositories: int, tags: int, threads: int) -> Iterator[Bench]:
    """Create the data of one size, and serve it."""
    with TemporaryDirectory(prefix="tagsync-benchmark-") as name:
        folder = Path(name)
        for state in (0, 1):
            moved = state * max(1, tags // 100)
            data.write(folder / str(state), repositories, tags, moved=moved)
        with serving(folder / "0", tags) as before, serving(folder / "1", tags) as after:
            yield Bench(folder, (before, after), repositories, threads)


def after_a_history(made: Bench) -> dict[str, Cost]:
    """Measure passes with 1 % changes, and idle ones, after many such passes."""
    passes = [
        (cost(made.sync(number % 2)), cost(made.sync(number % 2))) for number in range(HISTORY)
    ]
    changing, idle = zip(*passes[-5:], strict=True)
    return {
        f"1 % changes, after {HISTORY} such passes": median_cost(changing),
        f"idle pass, after {HISTORY} such passes": median_cost(idle),
    }


def measure_size(size: tuple[int, int], threads: int, runs: int) -> dict[str, Cost]:
    """Measure all ways at one size."""
    main = size == MAIN
    with bench(*size, threads) as made:
        ways = {
            FETCH: Measured(made.fetch("httpx", 1)),
            "first import": Measured(made.sync(0), made.remove_database),
            "idle pass": Measured(made.sync(0)),
            "1 % changes": Measured(made.sync(1)),
        }
        if threads > 1:
            ways[f"fetch, {threads} threads"] = Measured(made.fetch("httpx", threads))
        if main:
            ways["vendor's SDK"] = Measured(made.fetch("sdk", 1))
            ways |= {name: Measured(made.tagsync(name.split()[1])) for name in STARTS}
        costs = in_turn(ways, runs)
        if main:
            costs |= after_a_history(made)
        bytes_per_tag = made.database.stat().st_size / (size[0] * size[1])
        return {**costs, DATABASE: Cost(0, 0, bytes_per_tag)}


def table(costs: dict[tuple[int, int], dict[str, Cost]], threads: int) -> Iterator[str]:
    """Yield the lines of two Markdown tables: all sizes, and further ways at `MAIN`."""
    yield f"{machine()}; polling threads: {threads}; medians of whole processes on loopback.\n"
    yield f"| repositories x tags | {' | '.join(WAYS)} | bytes a tag |"
    yield "|---|---|---|---|---|---|"
    for (repositories, tags), ways in costs.items():
        cells = " | ".join(_cell(ways[name], ways[FETCH]) for name in WAYS)
        yield f"| {repositories} x {tags} | {cells} | {ways[DATABASE].peak:.0f} |"
    yield f"\n| at {MAIN[0]} x {MAIN[1]} | |"
    yield "|---|---|"
    for name, took in costs[MAIN].items():
        if name not in {*WAYS, DATABASE}:
            yield f"| {name} | {_cell(took, costs[MAIN][FETCH])} |"


def _cell(took: Cost, alone: Cost) -> str:
    return f"{took.wall:.2f} s, {took.wall / alone.wall:.2f} x fetch, {took.peak:.0f} MiB"


@click.command()
@click.option(
    "--threads",
    default=1,
    show_default=True,
    help="The number of polling threads of tagsync. One is enough on loopback, where requests take"
    " no time and another thread records.",
)
@click.option("--runs", default=3, show_default=True, help="How often each way is measured.")
@click.option("--only-main", is_flag=True, help="Leave the other sizes out.")
@click.option("--plot", "picture", type=Path, help="The SVG file to draw the sizes in.")
def main(*, threads: int, runs: int, only_main: bool, picture: Path | None) -> None:
    """Measure tagsync beside a fetch of the same bytes, and print a Markdown table."""
    if shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        raise click.ClickException("nginx is needed: apt-get install nginx-light")
    costs = {}
    for size in (MAIN,) if only_main else SIZES:
        click.echo(f"{size[0]} repositories of {size[1]} tags …", err=True)
        costs[size] = measure_size(size, threads, runs)
    for line in table(costs, threads):
        click.echo(line)
    if picture:
        plot(costs, picture)


main()

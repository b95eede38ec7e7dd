"""``python -m tests.benchmarks.oci``: one OCI repository beside skopeo.

Debian's docker-registry serves it on loopback. skopeo needs one process per tag to learn a digest,
so ``skopeo inspect --raw`` is measured for some tags, spread evenly over the list, and multiplied;
``skopeo list-tags`` is measured as it is. The same HEAD requests from a bare `httpx.Client` show
how much of tagsync's time the registry takes.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from typing import Final

import click

from tests.benchmarks.measure import TAGSYNC, Cost, Measured, in_turn, machine
from tests.support.docker_registry import DockerRegistry, running

REPOSITORY: Final = "team/api"

TAGS_OF_AN_IMAGE: Final = 10
"""The number of tags that point to the same image."""

_INSPECT: Final = 'for tag; do skopeo inspect --raw --tls-verify=false "$0:$tag" || exit; done'
"""A script that runs one process per tag; ``$0`` is the repository."""

_CONFIG: Final = """
[store]
path = "{database}"
[[registries]]
name = "oci"
kind = "oci"
endpoint = "{endpoint}"
requests_per_second = 100000
concurrency = {threads}
[[registries.watch]]
repositories = ["{repository}"]
manifests = {manifests}
"""


def fill(registry: DockerRegistry, count: int) -> list[str]:
    """Push images and tags that point to them; return the names of the tags."""
    digests: list[str] = []
    for number in range(count):
        if number % TAGS_OF_AN_IMAGE == 0:
            digests.append(registry.push(REPOSITORY, f"v{number}", f"image {number}"))
        else:
            registry.tag(REPOSITORY, f"v{number}", digests[-1])
    return [f"v{number}" for number in range(count)]


class Bench:
    """A registry and two tagsync configurations, with and without manifests."""

    def __init__(self, folder: Path, registry: DockerRegistry, threads: int) -> None:
        self._folder, self._threads = folder, threads
        self._url = f"{registry.url}/v2/{REPOSITORY}"
        self._reference = f"docker://{registry.host}/{REPOSITORY}"
        for name in ("digests", "manifests"):
            text = _CONFIG.format(
                database=folder / f"{name}.db",
                endpoint=registry.url,
                threads=threads,
                repository=REPOSITORY,
                manifests=str(name == "manifests").lower(),
            )
            (folder / f"{name}.toml").write_text(text)

    def ways(self, tags: int, some: Sequence[str]) -> dict[str, Measured]:
        """Return the commands to measure; the last one runs for some of the tags only."""
        heads = [sys.executable, "-m", "tests.benchmarks.fetch", "heads", self._url]
        return {
            "HEADs alone": Measured([*heads, str(tags), str(self._threads)]),
            "first sync": Measured(self._sync("digests"), self._forget),
            "idle sync": Measured(self._sync("digests")),
            "first sync, manifests": Measured(self._sync("manifests")),
            "idle sync, manifests": Measured(self._sync("manifests")),
            "list-tags": Measured(["skopeo", "list-tags", "--tls-verify=false", self._reference]),
            "inspect": Measured(["sh", "-c", _INSPECT, self._reference, *some]),
        }

    def _sync(self, name: str) -> list[str]:
        config = str(self._folder / f"{name}.toml")
        return [*TAGSYNC, "--config", config, "sync"]

    def _forget(self) -> None:
        for path in self._folder.glob("*.db*"):
            path.unlink()


def measure_all(tags: int, sampled: int, threads: int, runs: int) -> dict[str, Cost]:
    """Measure all commands, and estimate the cost of skopeo for all tags."""
    with TemporaryDirectory(prefix="tagsync-benchmark-") as name:
        folder = Path(name)
        with running(folder) as registry:
            names = fill(registry, tags)
            some = names[:: max(1, tags // sampled)]
            costs = in_turn(Bench(folder, registry, threads).ways(tags, some), runs)
    listed, inspected = costs.pop("list-tags"), costs.pop("inspect")
    times = tags / len(some)
    skopeo = Cost(
        listed.wall + times * inspected.wall,
        listed.cpu + times * inspected.cpu,
        max(listed.peak, inspected.peak),
    )
    return {**costs, "skopeo list-tags": listed, "skopeo list-tags and inspect": skopeo}


@click.command()
@click.option("--tags", default=1000, show_default=True, help="How many tags there are.")
@click.option("--sampled", default=25, show_default=True, help="How many of them skopeo inspects.")
@click.option("--threads", default=8, show_default=True, help="How many tagsync may use.")
@click.option("--runs", default=3, show_default=True, help="How often each way is measured.")
def main(*, tags: int, sampled: int, threads: int, runs: int) -> None:
    """Measure tagsync beside skopeo on one repository, and print a table in Markdown."""
    for program in ("docker-registry", "skopeo"):
        if which(program) is None:
            raise click.ClickException(f"{program} is needed: apt-get install {program}")
    costs = measure_all(tags, sampled, threads, runs)
    skopeo, alone = costs["skopeo list-tags and inspect"], costs["HEADs alone"]
    click.echo(f"{machine()}; {tags} tags, {threads} threads; medians of whole processes.\n")
    click.echo("| what | seconds | CPU seconds | x HEADs alone | skopeo takes |")
    click.echo("|---|---|---|---|---|")
    for name, took in costs.items():
        click.echo(
            f"| {name} | {took.wall:.2f} | {took.cpu:.2f} | {took.wall / alone.wall:.2f} |"
            f" x {skopeo.wall / took.wall:.1f} |"
        )


if __name__ == "__main__":
    main()

"""The table of `tests.benchmarks` as a picture: what grows, with the tags and the repositories."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.benchmarks.measure import Cost

_Costs = Mapping[tuple[int, int], Mapping[str, Cost]]
"""Of each size, in repositories and tags in each, what each way took."""

_WAYS: Final = ("first import", "1 % changes", "idle pass", "fetch, 1 thread")


def plot(costs: _Costs, path: Path) -> None:
    """Writes the picture as SVG; equal figures give equal files, in text that can be searched."""
    hundred = {size[0] * size[1]: ways for size, ways in costs.items() if size[1] == 100}
    spread = {size[0]: ways for size, ways in costs.items() if size[0] * size[1] == 100_000}
    with mpl.rc_context({"svg.hashsalt": "tagsync", "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 4), layout="constrained")
        by_tags, by_repositories = figure.subplots(1, 2)
        _curves(by_tags, hundred)
        _curves(by_repositories, spread)
        by_tags.set(title="100 tags a repository", xlabel="tags", ylabel="seconds", yscale="log")
        by_repositories.set(
            title="100,000 tags", xlabel="repositories", ylabel="seconds", yscale="log"
        )
        by_tags.legend()
        figure.savefig(path, format="svg", metadata={"Date": None})


def _curves(axes: Axes, costs: Mapping[int, Mapping[str, Cost]]) -> None:
    sizes = sorted(costs)
    for way in _WAYS:
        axes.plot(sizes, [costs[size][way].wall for size in sizes], marker="o", label=way)
    axes.set(xscale="log")
    axes.grid(visible=True, alpha=0.3)

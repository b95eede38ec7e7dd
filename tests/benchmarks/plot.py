"""The table of `tests.benchmarks` as two pictures: what grows with the tags, and what does not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.benchmarks.measure import Cost

_WAYS: Final = ("first import", "1 % changes", "idle pass", "fetch, 1 thread")


def plot(costs: Mapping[tuple[int, int], Mapping[str, Cost]], path: Path) -> None:
    """Writes the picture of what each way takes, by the number of tags, as SVG.

    Args:
        costs: of each size, in repositories and tags in each, what each way took.
        path: the file.
    """
    # Equal figures give equal files, in text that can be searched.
    with mpl.rc_context({"svg.hashsalt": "tagsync", "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 4), layout="constrained")
        seconds, memory = figure.subplots(1, 2)
        for way in _WAYS:
            _curve(seconds, costs, way, "wall")
            _curve(memory, costs, way, "peak")
        seconds.set(title="Seconds for a whole process", yscale="log")
        memory.set(title="Peak memory in MiB", ylim=(0, None))
        for axes in (seconds, memory):
            axes.set(xlabel="tags", xscale="log")
            axes.grid(visible=True, alpha=0.3)
        seconds.legend()
        figure.savefig(path, format="svg", metadata={"Date": None})


def _curve(
    axes: Axes,
    costs: Mapping[tuple[int, int], Mapping[str, Cost]],
    way: str,
    figure: str,
) -> None:
    points = sorted(
        (repositories * tags, getattr(ways[way], figure))
        for (repositories, tags), ways in costs.items()
    )
    axes.plot(*zip(*points, strict=True), marker="o", label=way)

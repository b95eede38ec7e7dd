"""Plot the table of `tests.benchmarks`: time and memory over both sizes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.benchmarks.measure import Cost

_Costs = Mapping[tuple[int, int], Mapping[str, Cost]]
"""The cost of each way, by repositories and tags in each."""

_WAYS: Final = ("first import", "1 % changes", "idle pass", "fetch, 1 thread")


def plot(costs: _Costs, path: Path) -> None:
    """Write the plot as SVG: equal figures give equal files, and text stays text."""
    hundred = {size[0] * size[1]: ways for size, ways in costs.items() if size[1] == 100}
    spread = {size[0]: ways for size, ways in costs.items() if size[0] * size[1] == 100_000}
    with mpl.rc_context({"svg.hashsalt": "tagsync", "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 7), layout="constrained")
        seconds, memory = figure.subplots(2, 2, sharey="row", sharex="col")
        columns = (
            ("100 tags a repository", "tags", hundred),
            ("100,000 tags", "repositories", spread),
        )
        for column, (title, unit, some) in enumerate(columns):
            _curves(seconds[column], some, lambda cost: cost.wall)
            _curves(memory[column], some, lambda cost: cost.peak)
            seconds[column].set(title=title, yscale="log")
            memory[column].set(xlabel=unit)
        seconds[0].set(ylabel="seconds")
        memory[0].set(ylabel="MiB at the peak")
        memory[0].set_ylim(bottom=0)
        seconds[0].legend()
        figure.savefig(path, format="svg", metadata={"Date": None})


def _curves(
    axes: Axes, costs: Mapping[int, Mapping[str, Cost]], measure: Callable[[Cost], float]
) -> None:
    sizes = sorted(costs)
    for way in _WAYS:
        axes.plot(sizes, [measure(costs[size][way]) for size in sizes], marker="o", label=way)
    axes.set(xscale="log")
    axes.grid(visible=True, alpha=0.3)

"""Marks that several drawings share: names, crosses, hatching and the legend."""

from collections.abc import Collection, Sequence
from typing import Final

from tagsync.drawing.elements import Node, linked, node
from tagsync.drawing.room import shorten

NAME: Final = 60
"""Maximum number of characters of a name, on a page of at least 600 pixels."""

NARROW_NAME: Final = 38
"""Maximum number of characters of a name on a narrower page."""

_LEGEND: Final = {
    "window": "window of uncertainty",
    "gap": "gap in coverage",
    "many": "many moves",
    "deletion": "tag deleted",
    "unwatched": "not watched yet",
    "unresolved": "not resolved",
    "covered": "covered",
    "partly": "partly covered",
}
"""The kinds of marks with their meaning, in the order of the legend."""

_HALVES: Final = {
    "window": ("c4", "c2"),
    "covered": ("covered", "covered"),
    "partly": ("uncovered", "partly"),
}
"""The classes of the two halves of a sample."""

_COLUMN: Final = 170
_ROW: Final = 20
"""Pixels of a column and of a row of the legend. Two columns fit a page of 360 pixels."""

_TILE: Final = 8
"""Pixels after which hatching repeats itself."""


def draw_name(parent: Node, name: str, href: str | None, *, y: float) -> None:
    """Draw the name of a row, shortened for narrow pages, as a link if there is a URL."""
    made = linked(parent, href, title=[name], class_="name", stop=True)
    wide, narrow = shorten(name, NAME), shorten(name, NARROW_NAME)
    if wide == narrow:
        node(made, "text", wide, x=0, y=y)
    else:
        node(made, "text", wide, x=0, y=y, class_="from-600")
        node(made, "text", narrow, x=0, y=y, class_="below-600")


def draw_cross(parent: Node, x: str, y: float) -> None:
    """Draw the mark of a deletion around a point."""
    # A nested drawing moves its origin to a position in percent.
    place = node(parent, "svg", x=x, y=y, overflow="visible")
    node(place, "circle", r=7, class_="halo")
    node(place, "path", d="M-4,-4L4,4M-4,4L4,-4", class_="cross")


def hatching(drawing: Node, prefix: str, *, top: float, bar: float, pitch: float) -> None:
    """Define the fills of gaps over bars, of times before the first listing, and of many moves.

    Args:
        drawing: The drawing.
        prefix: Begins the ids of the fills.
        top: Pixels above the first bar.
        bar: Height of a bar, a multiple of 8 pixels. The fills leave the space between bars free.
        pitch: Pixels from one bar to the next.
    """
    definitions = node(drawing, "defs")
    size = {"width": _TILE, "height": pitch}
    gap = _pattern(definitions, f"{prefix}-gap", y=top, **size)
    tile = node(gap, "svg", width=_TILE, height=bar)  # clips what it contains
    node(tile, "path", d=_diagonals(bar), class_="hatch-ground")
    node(tile, "path", d=_diagonals(bar), class_="hatch")
    unwatched = _pattern(definitions, f"{prefix}-unwatched", y=top, **size)
    for y in range(_TILE // 2, int(bar), _TILE):
        node(unwatched, "circle", cx=_TILE / 2, cy=y, r=0.8, class_="dot")
    many = _pattern(definitions, f"{prefix}-many", y=0, width=4, height=4)
    node(many, "rect", width=4, height=4, class_="many-ground")
    node(many, "rect", width=1, height=4, class_="many-line")


def block_hatching(drawing: Node, prefix: str) -> None:
    """Define the fills of blocks without coverage, and of those before the first listing."""
    definitions = node(drawing, "defs")
    size = {"width": _TILE, "height": _TILE}
    gap = _pattern(definitions, f"{prefix}-gap", y=0, **size)
    node(gap, "rect", class_="uncovered", **size)
    node(gap, "path", d=_diagonals(_TILE), class_="hatch-gap")
    unwatched = _pattern(definitions, f"{prefix}-unwatched", y=0, **size)
    node(unwatched, "circle", cx=_TILE / 2, cy=_TILE / 2, r=0.8, class_="dot")


def _diagonals(height: float) -> str:
    """Return the path of diagonal lines that continue from one tile to the next."""
    rows = range(-_TILE, int(height) + _TILE, _TILE)
    return "".join(f"M-2,{row + _TILE + 2}L{_TILE + 2},{row - 2}" for row in rows)


def legend_kinds(kinds: Collection[str]) -> list[str]:
    """Return the kinds of marks that the legend explains, in its order."""
    return [kind for kind in _LEGEND if kind in kinds]


def legend_height(entries: int) -> float:
    """Return the height of a legend in pixels, with the space above it."""
    return 14 + (entries + 1) // 2 * _ROW if entries else 0


def legend_place(index: int, y: float) -> tuple[float, float]:
    """Return the left and upper end of an entry of a legend that begins at ``y`` pixels."""
    return index % 2 * _COLUMN, y + 14 + index // 2 * _ROW


def draw_legend(
    drawing: Node, kinds: Sequence[str], prefix: str, *, y: float, fills_at: float
) -> None:
    """Draw a legend in two columns, its top at ``y`` pixels.

    ``fills_at`` is where the fills of the drawing begin: the top of its first bar, in pixels.
    """
    legend = node(drawing, "g", class_="legend")
    for index, kind in enumerate(kinds):
        left, top = legend_place(index, y)
        _draw_sample(legend, kind, prefix, fills_at, left, top)
        node(legend, "text", _LEGEND[kind], x=left + 24, y=top + 10)


def _draw_sample(
    legend: Node, kind: str, prefix: str, fills_at: float, left: float, top: float
) -> None:
    box = {"x": left, "width": 16.0}
    if kind == "deletion":
        draw_cross(legend, str(left + 8), top + 6)
    elif kind == "unresolved":
        hollow = node(legend, "g", class_="unresolved")
        node(hollow, "rect", x=left + 0.5, y=top + 0.5, width=15, height=11)
    elif kind in _HALVES:
        upper, lower = _HALVES[kind]
        node(legend, "rect", y=top, height=6, class_=upper, **box)
        node(legend, "rect", y=top + 6, height=6, class_=lower, **box)
    else:
        # A nested drawing moves the beginning of the fill to the sample.
        place = node(legend, "svg", x=left, y=top - fills_at, overflow="visible")
        fill = f"url(#{prefix}-{kind})"
        node(place, "rect", x=0, y=fills_at, width=16, height=12, fill=fill, class_="sample")


def _pattern(parent: Node, name: str, *, y: float, width: float, height: float) -> Node:
    units = "userSpaceOnUse"
    return node(
        parent, "pattern", id=name, patternUnits=units, x=0, y=y, width=width, height=height
    )

"""Draw the layers of an image as bars whose lengths are their sizes."""

from collections.abc import Sequence
from typing import Final

from tagsync.drawing.elements import Node, linked, node, percent, root, to_text, visible
from tagsync.drawing.room import PIXEL, shorten
from tagsync.drawing.tooltips import count, with_words
from tagsync.drawing.values import Layer
from tagsync.escaping import short_digest

_MOST: Final = 200
"""Maximum number of layers that are drawn. Docker allows 127."""

_ROW: Final = 38
_BAR: Final = 8.0
"""Pixels of a row, and of its bar."""

_DIGEST: Final = 20
"""Maximum number of characters of a digest, which are narrower than 170 pixels."""

_NOTE: Final = 40
"""Maximum number of characters of a note."""


_NEXT_UNIT: Final = 999.5
"""The least number that three digits would show as 1,000."""


def draw_layers(layers: Sequence[Layer], *, prefix: str, title: str) -> str:
    """Return the drawing of an image's layers, the lowest first.

    The longest bar is that of the largest layer. A layer without a size has no bar. After 200
    layers the drawing says how many more there are.

    Args:
        layers: The lowest layer first.
        prefix: Begins each id in the drawing. Different for each drawing of a page.
        title: The name of the drawing.
    """
    shown, left_out = layers[:_MOST], len(layers) - _MOST
    drawing = root(
        prefix,
        title=title,
        description=_describe(layers),
        height=max(len(shown), 1) * _ROW + (_ROW if left_out > 0 else 0),
        links=any(layer.href is not None for layer in shown),
    )
    largest = max((layer.size or 0 for layer in layers), default=0)
    for index, layer in enumerate(shown):
        _draw_layer(drawing, layer, index, max(largest, 1))
    if left_out > 0:
        text = f"… and {count(left_out, 'more layer')}"
        node(drawing, "text", text, x=0, y=len(shown) * _ROW + 16, class_="note")
    elif not layers:
        node(drawing, "text", "No layers", x=0, y=16, class_="note")
    return to_text(drawing)


def show_size(size: int | None) -> str:
    """Return a size with a decimal unit, as registries show it: ``12.3 MB``."""
    if size is None:
        return "size not stated"
    value = float(size)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < _NEXT_UNIT:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value * 1000:,.0f} TB"


def _draw_layer(drawing: Node, layer: Layer, index: int, largest: int) -> None:
    top = index * _ROW
    size = show_size(layer.size)
    words = with_words([f"{layer.digest}: {size}"], layer.note)
    made = linked(drawing, layer.href, title=words, class_="layer-row name", stop=True)
    node(made, "text", shorten(visible(short_digest(layer.digest)), _DIGEST), x=0, y=top + 15)
    node(drawing, "text", size, x="100%", y=top + 15, text_anchor="end", class_="note")
    if layer.note:
        note = shorten(visible(layer.note), _NOTE)
        node(drawing, "text", note, x=176, y=top + 15, class_="note from-600")
    bar = {"y": top + 22.0, "height": _BAR}
    node(drawing, "rect", width="100%", class_="empty", **bar)
    if layer.size and layer.size > 0:
        width = max(100 * min(layer.size / largest, 1), PIXEL)
        node(drawing, "rect", width=percent(width), class_="layer", **bar)


def _describe(layers: Sequence[Layer]) -> str:
    total = sum(layer.size or 0 for layer in layers)
    text = f"{count(len(layers), 'layer')}, {show_size(total)} together."
    missing = sum(layer.size is None for layer in layers)
    return f"{text} The size of {missing} is not stated." if missing else text

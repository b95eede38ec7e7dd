"""Whether a text has room: how wide it is, and from which width of the page on it fits.

A server does not know how wide a page will be. It therefore gives each text that may lack room the
class ``from-…`` of the narrowest page on which it fits, and the stylesheet hides it on narrower
ones. A page has at most `MARGINS` beside the drawing.
"""

import unicodedata
from typing import Final

PAGES: Final = (360, 600, 900, 1200)
"""Widths of pages, in pixels, from which on a text can be shown. `drawing.css` has the same."""

MARGINS: Final = 40
"""Pixels of a page that are not the drawing's."""

PIXEL: Final = 100 / (1280 - MARGINS)
"""A pixel of a page of 1,280 pixels, in percent of the drawing."""

DIGIT: Final = 7.3
"""Pixels of a character of a digest, which is 12 pixels high, in the usual fonts."""

_ELLIPSIS: Final = "…"


def shown_from(share: float, pixels: float) -> str | None:
    """Return the class of a text that needs room, or None if even the widest page lacks it.

    Args:
        share: The room, in percent of the drawing's width.
        pixels: The width of the text.
    """
    for page in PAGES:
        if share * (page - MARGINS) >= 100 * pixels:
            return f"from-{page}"
    return None


def shorten(text: str, width: int) -> str:
    """Return a text of at most so many cells, without its middle if it is too long.

    A cell is the width of a digit. The end of a name often tells it from similar ones.
    """
    if _cells(text) <= width:
        return text
    head = begin(text, (width - 1) // 2)
    tail = begin(text[::-1], width - 1 - _cells(head))[::-1]
    return f"{head}{_ELLIPSIS}{tail}"


def begin(text: str, width: int) -> str:
    """Return the longest beginning of a text that has at most so many cells."""
    used = 0
    for index, character in enumerate(text):
        used += _cells(character)
        if used > width:
            return text[:index]
    return text


def _cells(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)

"""Pure: the width of text on a terminal, and where to break it."""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

_EMOJI: Final = "\ufe0f"
"""A mark that makes some terminals show the character before it with two cells."""

_COMBINING: Final = frozenset({"Mn", "Me"})
"""Unicode categories of the marks that have no width of their own."""

_PARTS: Final = re.compile(r"[^/.-]*[/.-]+|[^/.-]+")
"""The parts of a name between which it may be broken."""


def cells(text: str) -> int:
    """Return the width of a text in cells. Terminals never show it wider.

    Terminals disagree about some sequences of characters. This is the largest of their widths.
    """
    if text.isascii():
        return len(text)
    return sum(map(_width, text))


def break_name(name: str, width: int) -> list[str]:
    """Break a name into lines, after a ``/``, ``-`` or ``.`` wherever that is possible.

    The lines have all characters of the name, and nothing else.
    """
    pieces = (piece for part in _PARTS.findall(name) for piece in _cut(part, width))
    return list(_fill(pieces, width))


def break_words(text: str, width: int) -> list[str]:
    """Break a text into lines at its spaces. A word that is too long is broken like a name."""
    lines: list[str] = []
    for word in text.split():
        if lines and cells(lines[-1]) + 1 + cells(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines += break_name(word, width)
    return lines


def truncate_cells(text: str, width: int, mark: str) -> str:
    """Return the text, or if it is too wide its beginning, which ends with the mark."""
    if cells(text) <= width:
        return text
    if width < cells(mark):
        return ""
    return next(_cut(text, width - cells(mark)), "").rstrip() + mark


@lru_cache(maxsize=4096)
def _width(character: str) -> int:
    from rich.cells import get_character_cell_size  # noqa: PLC0415  12 ms that ASCII does not need

    if unicodedata.category(character) in _COMBINING and character != _EMOJI:
        return 0
    return max(get_character_cell_size(character), 1)


def _fill(pieces: Iterator[str], width: int) -> Iterator[str]:
    """Join as many pieces on each line as fit."""
    line = ""
    for piece in pieces:
        if line and cells(line) + cells(piece) > width:
            yield line
            line = ""
        line += piece
    if line:
        yield line


def _cut(text: str, width: int) -> Iterator[str]:
    """Cut a text into pieces of at most this width, with combining marks on their base."""
    if text.isascii():
        yield from (text[start : start + width] for start in range(0, len(text), max(width, 1)))
        return
    piece, reached = "", 0
    for cluster in _clusters(text):
        if piece and reached + cells(cluster) > width:
            yield piece
            piece, reached = "", 0
        piece, reached = piece + cluster, reached + cells(cluster)
    if piece:
        yield piece


def _clusters(text: str) -> Iterator[str]:
    """Yield each character together with the marks that combine with it."""
    cluster = ""
    for character in text:
        if cluster and unicodedata.category(character) not in _COMBINING:
            yield cluster
            cluster = ""
        cluster += character
    if cluster:
        yield cluster

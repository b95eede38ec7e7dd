"""Measure lines as a terminal shows them, by Unicode's own tables."""

import re
import unicodedata
from typing import Final

WIDTHS: Final = (80, 100, 120, 200)
"""The widths of terminals, in cells, at which output is tested."""

LETTERS: Final = "abcz019" + "版本ｱあ" + "/-._" + "e\u0301"
"""Letters of names: narrow ones, wide ones, separators, and a mark that combines."""


def measured(text: str) -> int:
    """Return the width of a text in cells."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def plain(line: str) -> str:
    """Return a line without the escape sequences of colours."""
    return re.sub(r"\x1b\[[\d;]*m", "", line)

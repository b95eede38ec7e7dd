"""What a spreadsheet must not take for a formula."""

from typing import Final

_FORMULA: Final = (
    *("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20"),
    *("\t", "\r", "\n", "\\t", "\\r", "\\n"),
)
"""What a spreadsheet takes for the beginning of a formula, in full width as well; tab and ends of
lines also as `tagsync.terminal.harmless` writes them."""


def inert(text: str) -> str:
    """The text as a cell that no spreadsheet computes (OWASP, "CSV Injection").

    Nor any part of it, where a spreadsheet takes semicolons for the ends of cells.
    """
    return ";".join(map(_inert, text.split(";")))


def _inert(text: str) -> str:
    begins = text.startswith(_FORMULA) or text.lstrip().startswith(_FORMULA)
    return f"'{text}" if begins else text

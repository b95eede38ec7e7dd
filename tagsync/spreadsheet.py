"""What a spreadsheet must not take for a formula."""

from typing import Final

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""


def inert(text: str) -> str:
    """The text as a cell that no spreadsheet computes (OWASP, "CSV Injection")."""
    return f"'{text}" if text.startswith(_FORMULA) else text

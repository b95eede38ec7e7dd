"""Pure: what may be shown on a terminal."""

import unicodedata
from typing import Final

_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of what a terminal obeys instead of showing: controls, direction marks,
halves of pairs, and separators of lines."""


def harmless(text: str) -> str:
    """The text with everything that a terminal would obey written out as an escape.

    What a registry names may hold escape sequences that recolour, retitle or overwrite the screen,
    line breaks that forge log lines, and marks that reverse the direction of reading.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in _HIDDEN
        else character
        for character in text
    )

"""Text from elsewhere, made safe for a terminal, a spreadsheet or a sentence.

Registries, servers and damaged files may contain any character. Everything that tagsync shows of
them passes through one of these functions.
"""

import re
import unicodedata
from typing import Final

from tagsync.secrets import redact

_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories that a terminal interprets instead of showing them: control characters,
direction marks, surrogates and line separators."""

_FORMULA: Final = (
    *("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20"),
    *("\t", "\r", "\n", "\\t", "\\r", "\\n"),
)
"""Beginnings that a spreadsheet treats as a formula, in full width too; tabs and line ends also as
`escape_control_characters` writes them."""

_DIGEST: Final = re.compile(r"((?:sha\d+:)?[0-9a-f]{12})[0-9a-f]{20,}")

_LONGEST: Final = 300
"""Characters of another program's text that a sentence quotes."""


def escape_control_characters(text: str) -> str:
    """Return the text with control characters written as escape sequences.

    Names in a registry may contain sequences that recolour, retitle or overwrite the screen, line
    breaks that forge log lines, and marks that reverse the reading direction.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in _HIDDEN
        else character
        for character in text
    )


def escape_formulas(text: str) -> str:
    """Return the text as a cell that no spreadsheet computes (OWASP, "CSV Injection").

    Each part between semicolons is escaped, because some spreadsheets split cells there.
    """
    return ";".join(map(_escape_formula, text.split(";")))


def truncate(text: str) -> str:
    """Return the beginning of another program's text, for use in an error message.

    The result is one line without control characters and without secrets: a server may send
    anything, even a password that it received, and SQLite quotes the bytes of a damaged file.
    """
    # Redact first: the beginning of a secret could remain if the text was truncated before.
    line = " ".join(redact(text).split())[:_LONGEST]
    return "".join(character if character.isprintable() else "\ufffd" for character in line)


def short_digest(digest: str) -> str:
    """Return the algorithm and the first 12 hexadecimal digits of a digest, to be shown to people.

    A text that is not a digest is returned unchanged.
    """
    match = _DIGEST.fullmatch(digest)
    return match[1] if match else digest


def _escape_formula(text: str) -> str:
    begins = text.startswith(_FORMULA) or text.lstrip().startswith(_FORMULA)
    return f"'{text}" if begins else text

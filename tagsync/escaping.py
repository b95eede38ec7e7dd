"""Escape or shorten text from other systems, so that it is safe to show.

Text from registries, servers and damaged files may contain any character. Before tagsync shows such
text in a terminal, a spreadsheet or a message, it passes the text through one of these functions.
"""

import re
import unicodedata
from typing import Final

from tagsync.secrets import redact

_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories of the characters that a terminal interprets instead of showing them.

They are control characters, direction marks, surrogates and line separators.
"""

_FORMULA: Final = (
    *("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20"),
    *("\t", "\r", "\n", "\\t", "\\r", "\\n"),
)
"""Beginnings of texts that a spreadsheet may treat as formulas.

They are signs in normal and in full width, and tabs and line ends. Tabs and line ends are also
listed as the escape sequences that `escape_control_characters` writes.
"""

_DIGEST: Final = re.compile(r"((?:sha\d+:)?[0-9a-f]{12})[0-9a-f]{20,}")

_LONGEST: Final = 300
"""Maximum length of another program's text in a message, in characters."""


def escape_control_characters(text: str) -> str:
    """Return the text with control characters written as escape sequences.

    Names in a registry may contain sequences that change the colours, the title or the contents of
    a terminal, line breaks that forge log lines, and marks that reverse the reading direction.
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
    """Return the text in a form that a spreadsheet does not treat as a formula.

    Each part between semicolons is escaped, because some spreadsheets split cells there. The rules
    are those of OWASP ("CSV Injection").
    """
    if text[:1].isalnum() and ";" not in text:
        return text  # Most cells. A letter or a digit begins no formula.
    return ";".join(map(_escape_formula, text.split(";")))


def truncate(text: str) -> str:
    """Return the beginning of another program's text, for use in an error message.

    The result is one line without control characters and without secrets. A server may send any
    characters, and also a password that it received. The messages of SQLite may quote bytes of a
    damaged file.
    """
    # Redact first: the beginning of a secret could remain if the text was truncated before.
    line = " ".join(redact(text).split())[:_LONGEST]
    return "".join(character if character.isprintable() else "\ufffd" for character in line)


def short_digest(digest: str) -> str:
    """Return a digest's algorithm and first 12 hexadecimal digits, for display.

    A text that is not a digest is returned unchanged.
    """
    match = _DIGEST.fullmatch(digest)
    return match[1] if match else digest


def _escape_formula(text: str) -> str:
    begins = text.startswith(_FORMULA) or text.lstrip().startswith(_FORMULA)
    return f"'{text}" if begins else text

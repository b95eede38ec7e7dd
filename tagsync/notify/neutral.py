"""Pure: text of registries, made safe for chats, mails and pages.

Chats interpret text in different ways: as Markdown, as HTML, or with their own markup for mentions
and links. No way to escape fits all of them. Therefore no character with a meaning remains.
"""

import re
from typing import Final

from tagsync.escaping import escape_control_characters

_LONGEST_NAME: Final = 300
"""Maximum number of characters of a name in a text. A tag has at most 128."""

_LONGEST_TEXT: Final = 500

_OUTSIDE_NAMES: Final = re.compile(r"[^A-Za-z0-9_./+:-]")
"""Characters that no name of a repository or a tag and no digest may have."""

_LOOKALIKES: Final = str.maketrans(
    {
        "<": "\u2039",
        ">": "\u203a",
        "[": "(",
        "]": ")",
        "`": "'",
        "*": "\u2217",
        "~": "\u223c",
        "|": "\u00a6",
        "#": "\uff03",
        "@": "\uff20",
        "&": "\uff06",
        "\\": "/",
    }
)


def neutral_name(text: str) -> str:
    """Return a name with every character that is not allowed in names percent-encoded.

    The result has no spaces, no markup, no mention and no address with a scheme.
    """
    encoded = _OUTSIDE_NAMES.sub(_percent_encode, text).replace("://", "%3A//")
    return _truncate(encoded, _LONGEST_NAME)


def neutral_text(text: str) -> str:
    """Return a sentence on one line, with lookalikes of the characters that have a meaning."""
    line = escape_control_characters(" ".join(text.split())).translate(_LOOKALIKES)
    return _truncate(line.replace("://", ": //"), _LONGEST_TEXT)


def _percent_encode(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))


def _truncate(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"

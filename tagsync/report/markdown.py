"""Write a document as Markdown (GitHub's dialect).

Texts of others are always code, in which Markdown has no markup. A part of a cell's text that would
end the cell is written as an escape sequence. Drawings are left out.
"""

import re
from collections.abc import Iterator
from typing import Final

from tagsync.drawing.elements import visible
from tagsync.report.document import (
    Block,
    Code,
    Column,
    Document,
    Drawing,
    Facts,
    Heading,
    Inline,
    Listing,
    Notice,
    Paragraph,
    Strong,
    Table,
    Text,
)

_MARKUP: Final = re.compile(
    r"[\\`*_\[\]<>&|~#$@!]|(?<=:)//|(?<=\bwww)\.|^[-+=]|^\d+[.)](?= |$)", re.IGNORECASE
)
"""The parts of tagsync's own sentences that could be markup, or become a link by themselves."""

_KINDS: Final = {"fault": "Fault", "warning": "Warning", "good": "Check"}
"""The word at the beginning of a notice, by its kind."""


def to_markdown(document: Document) -> str:
    """Return a document as Markdown."""
    return "\n".join(block for each in document if (block := _block(each)))


def plain(words: str) -> str:
    """Return a text with everything escaped that could be markup."""
    return _MARKUP.sub(
        lambda match: "".join(each if each.isalnum() else f"&#{ord(each)};" for each in match[0]),
        visible(words),
    )


def code(content: str, *, cell: bool = False) -> str:
    r"""Return a text as code, exactly as it is but for control characters.

    Args:
        content: The text.
        cell: Whether it is in a table, where a vertical bar would end the cell. It is shown as
            ``\x7c``.
    """
    shown = visible(content) or "(empty)"
    if cell:
        shown = shown.replace("|", r"\x7c")
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    # Markdown removes a space at both ends, and backticks at an end would belong to the fence.
    ends = shown.strip(" ") and shown[0] + shown[-1]
    padding = " " if set(ends) & set(" `") else ""
    return f"{fence}{padding}{shown}{padding}{fence}"


def _block(block: Block) -> str:
    match block:
        case Heading(words, level):
            made = f"{'#' * level} {_line(words)}\n"
        case Paragraph(words):
            made = f"{_line(words)}\n"
        case Notice(words, kind):
            made = f"> **{_KINDS[kind]}:** {_line(words)}\n"
        case Facts(rows):
            made = "".join(f"- {plain(name)}: {_line(words)}\n" for name, words in rows)
        case Table():
            made = "\n".join(_table(block)) + "\n"
        case Listing(lines, language):
            made = _listing(lines, language)
        case Drawing():
            made = ""
    return made


def _listing(lines: str, language: str) -> str:
    shown = "\n".join(visible(line) for line in lines.rstrip("\n").split("\n"))
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))
    return f"{fence}{language}\n{shown}\n{fence}\n"


def _table(table: Table) -> Iterator[str]:
    if table.caption:
        yield f"{_line(table.caption)}\n"
    yield _row(plain(column.title) for column in table.columns)
    yield _row(map(_rule, table.columns))
    for row in table.rows:
        yield _row(_line(cell, cell=True) for cell in row)


def _rule(column: Column) -> str:
    return "---:" if column.kind == "number" else "---"


def _row(cells: Iterator[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _line(words: Text, *, cell: bool = False) -> str:
    return "".join(_part(word, cell=cell) for word in words)


def _part(word: Inline, *, cell: bool) -> str:
    match word:
        case Code(content):
            return code(content, cell=cell)
        case Strong(content):
            return f"**{plain(content)}**"
        case _:
            return plain(word)

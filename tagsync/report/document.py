"""A document: headings, sentences, tables and drawings, independent of a format."""

from typing import Literal

import msgspec


class Code(msgspec.Struct, frozen=True):
    """A text of others, such as a name or a digest, or a text to copy exactly."""

    text: str


class Strong(msgspec.Struct, frozen=True):
    """A text of tagsync that stands out."""

    text: str


Inline = str | Code | Strong
"""A part of a sentence. A plain text is tagsync's own."""

Text = tuple[Inline, ...]
"""A sentence, or the content of a cell."""


class Heading(msgspec.Struct, frozen=True):
    """The title of the document (level 1), or of a section (level 2 or 3)."""

    text: Text
    level: Literal[1, 2, 3] = 2


class Paragraph(msgspec.Struct, frozen=True):
    """A sentence or more.

    Attributes:
        text: The sentences.
        kind: ``lead`` for the answer, ``note`` for a remark.
    """

    text: Text
    kind: Literal["", "lead", "note"] = ""


class Notice(msgspec.Struct, frozen=True):
    """A sentence in a box.

    Attributes:
        text: The sentence.
        kind: ``fault`` if the record is not to be trusted, ``warning`` if evidence is missing,
            ``good`` if a check passed.
    """

    text: Text
    kind: Literal["fault", "warning", "good"]


class Facts(msgspec.Struct, frozen=True):
    """Names with their values."""

    rows: tuple[tuple[str, Text], ...]


class Column(msgspec.Struct, frozen=True):
    """A column of a table.

    Attributes:
        title: Its title.
        kind: ``number`` for numbers, which are aligned at their right end, and ``word`` for short
            words, which stay on one line.
    """

    title: str
    kind: Literal["text", "number", "word"] = "text"


class Table(msgspec.Struct, frozen=True):
    """A table.

    Attributes:
        caption: A description of the table.
        columns: The columns.
        rows: For each row, the content of each column.
    """

    caption: Text
    columns: tuple[Column, ...]
    rows: tuple[tuple[Text, ...], ...]


class Listing(msgspec.Struct, frozen=True):
    """Lines of code to copy.

    Attributes:
        text: The lines.
        language: The name of the language, for formats that highlight it.
        label: A description, for people who do not see it.
    """

    text: str
    language: Literal["sql", "python", "sh"]
    label: str


class Drawing(msgspec.Struct, frozen=True):
    """A drawing of `tagsync.drawing`.

    Attributes:
        svg: The drawing.
        caption: A description. A format without drawings leaves it out, too.
    """

    svg: str
    caption: Text


Block = Heading | Paragraph | Notice | Facts | Table | Listing | Drawing
Document = tuple[Block, ...]


def text(*parts: Inline) -> Text:
    """Return a sentence of several parts. Empty texts are left out."""
    return tuple(part for part in parts if part != "")

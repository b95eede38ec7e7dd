"""Pure: render rows as a table for people, at any width.

A table describes its columns; `render` decides the layout. A row takes one line if its columns fit
beside each other. If they do not, columns are left out, in a fixed order, and then a row takes two
lines. A name that is wider than its column gets lines of its own, so that it is never cut.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, Final, Literal, NamedTuple

from tagsync.cli import formats
from tagsync.cli.layout import break_name, break_words, cells, truncate_cells
from tagsync.escaping import escape_control_characters

Row = Mapping[str, Any]

Kind = Literal["name", "words", "digest", "time", "age", "size", "number", "text", "cut"]
"""How a column is shown.

``name`` and ``words`` are never cut, and get lines of their own if they are too wide: a name is
broken after a separator, words are broken at spaces. ``text`` is wrapped in its column, and ``cut``
is truncated there unless everything is shown in full. ``size`` and ``number`` are right-aligned.
"""

STYLES: Final[Mapping[str, str]] = {
    "": "",
    "heading": "1",
    "faint": "2",
    "moved": "33",
    "added": "32",
    "deleted": "31",
    "updated": "36",
    "ok": "32",
    "failed": "31",
    "held": "35",
    "uncertain": "35",
    "stale": "1;31",
}
"""The meaning of each colour, and its parameters in an escape sequence (ECMA-48, SGR)."""

LONGEST_REPOSITORY: Final = 64
LONGEST_TAG: Final = 40
"""Widest names that share a line with other columns, in cells."""

PART: Final = 1000
"""Maximum number of rows that are laid out together, if there may be very many."""

NARROW: Final = 100
"""Width in cells below which a row seldom has room for a repository beside other columns."""

_GAP: Final = "  "
_INDENT: Final = 2
_LEAST_TEXT: Final = 24
"""Least width of a column of text without a limit of its own, in cells."""

_WRAPPED: Final = frozenset({"text", "cut"})
_RIGHT: Final = frozenset({"size", "number"})


class View(NamedTuple):
    """How to show tables.

    Attributes:
        width: Width of the terminal in cells.
        now: The current time, for ages.
        zone: The zone in which times are shown. None means the zone of this computer.
        full: Whether to show whole digests and texts.
        color: Whether to use colours.
        encoding: Encoding of the output. Characters that it lacks are escaped.
    """

    width: int
    now: datetime
    zone: tzinfo | None = UTC
    full: bool = False
    color: bool = False
    encoding: str = "utf-8"

    def show(self, text: str) -> str:
        """Return a text as it appears in the output, without control characters."""
        escaped = escape_control_characters(text)
        if escaped.isascii():
            return escaped
        return escaped.encode(self.encoding, "backslashreplace").decode(self.encoding)

    def digest(self, digest: str | None) -> str:
        """Return a digest, shortened unless everything is shown in full."""
        return formats.digest_text(digest, full=self.full)

    def time(self, text: str | None) -> str:
        """Return a time, to the minute."""
        return formats.time_text(text, self.zone)

    def between(self, start: str | None, end: str | None) -> str:
        """Return a period in words."""
        return formats.between_text(start, end, self.zone)

    def symbol(self, symbol: str, instead: str) -> str:
        """Return a symbol, or a replacement if the encoding lacks the symbol."""
        return symbol if self.show(symbol) == symbol else instead

    @property
    def arrow(self) -> str:
        """The arrow between an old and a new value."""
        return self.symbol("→", "->")

    def paint(self, text: str, style: str) -> str:
        """Return the text with the escape sequences of a style."""
        code = STYLES[style]
        return f"\x1b[{code}m{text}\x1b[0m" if self.color and code and text else text


class Column(NamedTuple):
    """One column of a table.

    Attributes:
        key: The key of a row, and the title.
        kind: How the value is shown.
        line: The line of a two-line row: 1 or 2.
        optional: 0 if the column is never left out. The others are left out in narrow tables,
            those with the highest number first.
        text: The text for a row. None means the value of ``key``, as ``kind`` shows it.
        style: The style for a row; see `STYLES`.
        limit: Of names, the widest one that shares a line with other columns, in cells; of texts,
            the least width of the column.
        common: Whether a value that all rows have becomes a heading.
        only: The form that has the column: rows of one line, rows of two lines, or both.
    """

    key: str
    kind: Kind
    line: int = 1
    optional: int = 0
    text: Callable[[Row, View], str] | None = None
    style: Callable[[Row], str] | None = None
    limit: int = 0
    common: bool = False
    only: Literal[1, 2] | None = None


def repository_column(**options: Any) -> Column:
    """Return the column ``repository``, which becomes the heading if all rows share it."""
    return Column("repository", "name", **{"limit": LONGEST_REPOSITORY, "common": True, **options})


def tag_column(**options: Any) -> Column:
    """Return the column ``tag``, on the second line of a two-line row."""
    return Column("tag", "name", **{"line": 2, "limit": LONGEST_TAG, **options})


class Line(NamedTuple):
    """A sentence, a heading or, without a text, an empty line between tables."""

    text: str = ""
    style: str = ""
    indent: int = 0


Widths = dict[int, set[int]]
"""The widths, in cells, that the texts of each column have, by the index of the column."""


class Table(NamedTuple):
    """Rows with their columns.

    Attributes:
        columns: The columns.
        rows: The rows.
        header: Whether to show the titles of the columns.
        widths: The widths of earlier tables with which this one is aligned; rendering adds its own.
            None if the table stands alone.
    """

    columns: Sequence[Column]
    rows: Sequence[Row]
    header: bool = True
    widths: Widths | None = None


Block = Line | Table


def render(blocks: Iterable[Block], view: View) -> Iterator[str]:
    """Yield the lines of a document. No line is wider than the view."""
    for block in blocks:
        if isinstance(block, Table):
            yield from _render_table(block, view)
        else:
            yield from _render_line(block, view)


def aligned_tables(
    columns: Sequence[Column], rows: Iterable[Row], *, header: bool = True
) -> Iterator[Table]:
    """Yield the rows as tables of at most `PART` rows, so that long ones are shown at once.

    The tables look like one. Only if a later table needs more width does the layout change.
    """
    widths: Widths = {}
    left = iter(rows)
    while part := list(islice(left, PART)):
        yield Table(columns, part, header, widths)
        header = False


def repository_tables(
    columns: Sequence[Column], rows: Sequence[Row], view: View
) -> Iterator[Block]:
    """Yield the rows, in a narrow view with the name of each repository as a heading.

    Without a repository of several rows, headings would only need more lines.
    """
    if view.width >= NARROW or not 1 < len({row["repository"] for row in rows}) < len(rows):
        yield Table(columns, rows)
        return
    rest = [column for column in columns if column.key != "repository"]
    widths = {
        n: {cells(_cell(column, row, view).text) for row in rows} for n, column in enumerate(rest)
    }
    for number, (repository, group) in enumerate(groupby(rows, key=itemgetter("repository"))):
        if number:
            yield Line()
        yield Line(repository, "heading")
        yield Table(rest, list(group), header=not number, widths=widths)


def default_text(value: object, kind: Kind, view: View) -> str:
    """Return the text of a value for a kind of column. None is an empty text."""
    if value is None:
        return "never" if kind == "age" else ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return _string_text(value, kind, view)
    if isinstance(value, int) and kind in _RIGHT:
        return formats.size_text(value) if kind == "size" else formats.number_text(value)
    return str(value)


def _string_text(text: str, kind: Kind, view: View) -> str:
    if kind == "digest":
        return view.digest(text)
    if kind == "time":
        return view.time(text)
    return formats.age_text(text, view.now) if kind == "age" else text


class _Cell(NamedTuple):
    text: str
    style: str
    kind: Kind = "name"

    def broken(self, width: int) -> list[str]:
        """Return the text in lines of at most this width."""
        broken = break_words if self.kind == "words" else break_name
        return broken(self.text, max(width, 1))


class _Band(NamedTuple):
    """The columns that share a line, by their index, with their widths."""

    indent: int
    widths: dict[int, int]


def _render_line(line: Line, view: View) -> Iterator[str]:
    text = view.show(line.text)
    if cells(text) + line.indent <= view.width:
        yield " " * line.indent * bool(text) + view.paint(text, line.style)
        return
    for part in break_words(text, max(view.width - line.indent, 1)):
        yield " " * line.indent + view.paint(part, line.style)


def _render_table(table: Table, view: View) -> Iterator[str]:
    if not table.rows:
        return
    grid = [[_cell(column, row, view) for column in table.columns] for row in table.rows]
    widths: Widths = {} if table.widths is None else table.widths
    for n, _ in enumerate(table.columns):
        widths.setdefault(n, set()).update(cells(line[n].text) for line in grid)
    used = [n for n, found in widths.items() if any(found)]
    shared = [n for n in used if _is_shared(table.columns[n], [line[n] for line in grid])]
    for n in shared:
        yield from _render_line(_heading(table.columns[n], grid[0][n].text), view)
    rest = [n for n in used if n not in shared]
    if not rest:
        return
    columns = {n: table.columns[n] for n in rest}
    if table.header:
        for n, column in columns.items():
            widths[n].add(cells(column.key))
    bands = _lay_out(columns, {n: widths[n] for n in rest}, view.width)
    if table.header:
        titles = [_Cell(column.key, "heading") for column in table.columns]
        yield from _render_row(titles, columns, bands, view)
    for line in grid:
        yield from _render_row(line, columns, bands, view)


def _cell(column: Column, row: Row, view: View) -> _Cell:
    if column.text is not None:
        text = column.text(row, view)
    else:
        text = default_text(row[column.key], column.kind, view)
    return _Cell(view.show(text), column.style(row) if column.style else "", column.kind)


def _is_shared(column: Column, values: Sequence[_Cell]) -> bool:
    return column.common and len(values) > 1 and len({cell.text for cell in values}) == 1


def _heading(column: Column, text: str) -> Line:
    return Line(text if column.key == "repository" else f"{column.key}: {text}", "heading")


def _lay_out(
    columns: Mapping[int, Column], everything: Mapping[int, set[int]], width: int
) -> list[_Band]:
    """Choose the form of the rows: the columns of each line and their widths.

    The first form that fits is taken. If none fits, the columns of names are narrowed.

    Args:
        columns: The columns that have a text.
        everything: The widths of all texts of each column.
        width: The width of the terminal.
    """
    ranks = sorted({column.optional for column in columns.values()}, reverse=True)
    bands: list[_Band] = []
    for form in (1, 2):
        for rank in ranks:
            kept = [
                n
                for n, column in columns.items()
                if column.optional <= rank and column.only in {None, form}
            ]
            for limited in (False, True):
                widths = {n: _natural(columns[n], everything[n], limited=limited) for n in kept}
                bands = _bands(columns, widths, form)
                if all(_total(band) <= width for band in bands):
                    return [_widened(band, columns, everything, width) for band in bands]
    return [_narrowed(band, columns, width) for band in bands]


def _natural(column: Column, widths: set[int], *, limited: bool) -> int:
    """Return the width that a column needs. Names over the limit do not count if ``limited``."""
    if column.kind in _WRAPPED:
        return min(max(widths), column.limit or _LEAST_TEXT)
    if limited and column.kind == "name":
        longest = column.limit or LONGEST_REPOSITORY
        return max((width for width in widths if width <= longest), default=0)
    return max(widths)


def _bands(columns: Mapping[int, Column], widths: Mapping[int, int], form: int) -> list[_Band]:
    if form == 1:
        return [_Band(0, dict(widths))]
    lines = [{n: w for n, w in widths.items() if columns[n].line == line} for line in (1, 2)]
    present = [line for line in lines if line]
    return [_Band(_INDENT if position else 0, line) for position, line in enumerate(present)]


def _total(band: _Band) -> int:
    return band.indent + sum(band.widths.values()) + len(_GAP) * (len(band.widths) - 1)


def _widened(
    band: _Band, columns: Mapping[int, Column], natural: Mapping[int, set[int]], width: int
) -> _Band:
    """Give the cells that are left over to the columns of text, from left to right."""
    widths, left = dict(band.widths), width - _total(band)
    for n, least in band.widths.items():
        if columns[n].kind in _WRAPPED:
            more = min(max(natural[n]) - least, left)
            widths[n], left = least + more, left - more
    return _Band(band.indent, widths)


def _narrowed(band: _Band, columns: Mapping[int, Column], width: int) -> _Band:
    """Take the missing cells from words, then from the widest names, and then from the others."""
    widths = dict(band.widths)
    while _total(_Band(band.indent, widths)) > width and any(widths.values()):
        words = [n for n in widths if columns[n].kind == "words" and widths[n]]
        names = [n for n in widths if columns[n].kind == "name" and widths[n]]
        widest = max(words or names or widths, key=lambda n: widths[n])
        widths[widest] -= 1
    return _Band(band.indent, widths)


def _render_row(
    line: Sequence[_Cell], columns: Mapping[int, Column], bands: Sequence[_Band], view: View
) -> Iterator[str]:
    """Yield the lines of a row.

    Names that are too wide come before the rest of their line, and words that are too wide after
    it.
    """
    carried: list[_Cell] = []
    for band in bands:
        outside = [n for n, width in band.widths.items() if _is_wide(line[n], columns[n], width)]
        wide = [n for n in outside if columns[n].kind != "words"]
        for n in wide:
            yield from _own_lines(line[n], band.indent, view)
        rest = [n for n in band.widths if n not in wide and line[n].text]
        if carried or (wide and band is not bands[-1]):
            # Beside a name with lines of its own, alignment is less useful than a short row.
            carried += [line[n] for n in rest]
            if wide and band is not bands[-1]:
                continue
            yield from _flow(carried, _INDENT, view)
            carried = []
        else:
            yield from _aligned([n for n in rest if n not in outside], line, columns, band, view)
            for n in rest:
                if n in outside:
                    yield from _own_lines(line[n], _INDENT, view)


def _own_lines(cell: _Cell, indent: int, view: View) -> Iterator[str]:
    for part in cell.broken(view.width - indent):
        yield " " * indent + view.paint(part, cell.style)


def _is_wide(cell: _Cell, column: Column, width: int) -> bool:
    return cells(cell.text) > width and (column.kind not in _WRAPPED or width < 1)


def _wrapped(cell: _Cell, column: Column, width: int, view: View) -> list[str]:
    if cells(cell.text) <= width or column.kind not in _WRAPPED:
        return [cell.text]
    if column.kind == "cut" and not view.full:
        return [truncate_cells(cell.text, width, view.symbol("…", "..."))]
    return break_words(cell.text, width)


def _aligned(
    present: Sequence[int],
    line: Sequence[_Cell],
    columns: Mapping[int, Column],
    band: _Band,
    view: View,
) -> Iterator[str]:
    """Yield the lines of some columns of a band, each part below the title of its column."""
    shown = {n: _wrapped(line[n], columns[n], band.widths[n], view) for n in present}
    for height in range(max(map(len, shown.values()), default=0)):
        padded = []
        for n, width in band.widths.items():
            parts = shown.get(n, ())
            text = parts[height] if height < len(parts) else ""
            spaces = " " * (width - cells(text))
            painted = view.paint(text, line[n].style)
            padded.append(spaces + painted if columns[n].kind in _RIGHT else painted + spaces)
        yield " " * band.indent + _GAP.join(padded).rstrip()


def _flow(parts: Sequence[_Cell], indent: int, view: View) -> Iterator[str]:
    """Yield cells one after the other, on as few lines as they fit on."""
    line, reached = "", 0
    for cell in parts:
        if reached and indent + reached + len(_GAP) + cells(cell.text) > view.width:
            yield " " * indent + line
            line, reached = "", 0
        pieces = cell.broken(view.width - indent)
        for piece in pieces[:-1]:
            yield " " * indent + view.paint(piece, cell.style)
        gap = _GAP if reached else ""
        line += gap + view.paint(pieces[-1], cell.style)
        reached += len(gap) + cells(pieces[-1])
    if reached:
        yield " " * indent + line

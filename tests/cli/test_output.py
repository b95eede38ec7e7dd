"""Printing rows: each format is complete, and escaped for what reads it."""

import csv
import io
import json
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagsync.audit.rows import as_rows
from tagsync.cli.options import FORMATS
from tagsync.cli.output import WIDTH, show, write_data
from tagsync.errors import DamagedRecord
from tagsync.escaping import escape_control_characters

HOSTILE = "\x1b[31mred\x1b]0;title\x07\r\nforged\u202egnp\u2028\x9b2J"
DIGEST = f"sha256:{'0123456789abcdef' * 4}"

ANY_TEXT = st.text(st.characters(codec=None), max_size=30)


class Terminal(io.StringIO):
    """A text stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def type_of(*columns: str) -> type[msgspec.Struct]:
    """Return a type of rows with these columns, of any value."""
    return msgspec.defstruct("Shown", [(column, Any) for column in columns])


def shown(output_format: str, *rows: dict[str, Any], terminal: bool = False) -> str:
    """Return what `show` prints for rows that all have the columns of the first."""
    kind = type_of(*rows[0])
    stream = Terminal() if terminal else io.StringIO()
    with redirect_stdout(stream):
        show(as_rows(rows, kind), kind, output_format)
    return stream.getvalue()


def cells(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


@pytest.mark.parametrize("output_format", FORMATS)
def test_only_the_columns_are_shown(output_format: str) -> None:
    """Only the requested columns of a row are printed, in the requested order."""
    stream = io.StringIO()
    with redirect_stdout(stream):
        kind = type_of("b", "a")
        show(as_rows([{"a": 1, "hidden": "x", "b": 2}], kind), kind, output_format)
    text = stream.getvalue()
    assert "hidden" not in text
    assert "x" not in text
    assert text.index("b") < text.index("a")


def test_each_format_without_rows() -> None:
    """Without rows, a format prints an empty list, nothing, or its header."""
    texts: dict[str, str] = {}
    for output_format in FORMATS:
        stream = io.StringIO()
        with redirect_stdout(stream):
            show([], type_of("repository", "tag"), output_format)
        texts[output_format] = stream.getvalue()
    assert json.loads(texts["json"]) == []
    assert texts["jsonl"] == ""
    assert texts["csv"] == "repository,tag\n"
    assert texts["table"].split() == ["repository", "tag"]


def test_json_keeps_types() -> None:
    """JSON has numbers, booleans and null as such, and unchanged text."""
    row = {"id": 1, "stale": False, "digest": None, "tag": HOSTILE, "seconds": 0.5}
    assert json.loads(shown("json", row, row)) == [row, row]
    assert [json.loads(line) for line in shown("jsonl", row, row).splitlines()] == [row, row]


def test_json_has_no_control_characters() -> None:
    """JSON on a terminal has no character that the terminal interprets."""
    for output_format in ("json", "jsonl"):
        text = shown(output_format, {"tag": HOSTILE})
        assert text.isascii()
        assert text.replace("\n", "").isprintable()


@pytest.mark.parametrize("number", range(4))
def test_json_is_one_indented_list(number: int) -> None:
    """The list, which is written row by row, is indented like one that is written at once."""
    row = {"tag": f"{HOSTILE}, ]", "fields": {"a": [1, {"b": None}]}, "list": [], "object": {}}
    stream = io.StringIO()
    kind = type_of(*row)
    write_data(as_rows([row] * number, kind), kind, "json", stream)
    assert stream.getvalue() == f"{json.dumps([row] * number, indent=2)}\n"


@pytest.mark.parametrize("output_format", ["json", "jsonl"])
def test_rows_are_written_as_they_come(output_format: str) -> None:
    """A row is written before the next one is read; after an error, the list has no end."""
    kind = type_of("id")
    stream = io.StringIO()
    seen = []

    def rows() -> Iterator[msgspec.Struct]:
        for number in range(3):
            seen.append(stream.getvalue().count('"id"'))
            yield kind(number)
        raise DamagedRecord("change 4")

    with pytest.raises(DamagedRecord):
        write_data(rows(), kind, output_format, stream)
    assert seen == [0, 1, 2]
    with pytest.raises(json.JSONDecodeError):
        json.loads(stream.getvalue())


def test_jsonl_is_one_line_per_row() -> None:
    """Line breaks in the data do not break a line."""
    assert shown("jsonl", {"tag": "a\nb\u2028c"}, {"tag": "d"}).count("\n") == 2


def test_an_object_is_json_in_each_format() -> None:
    """An object is part of the JSON, and JSON text in a cell of CSV."""
    row = {"fields": {"is_trusted": [False, True], "größe": [1, None]}}
    assert json.loads(shown("json", row)) == [row]
    assert json.loads(shown("jsonl", row)) == row
    (_, (cell,)) = cells(shown("csv", row))
    assert cell == '{"is_trusted":[false,true],"größe":[1,null]}'


def test_a_value_of_another_type_is_damage() -> None:
    """A value that is not of its type is reported with its row, and never printed."""
    kind = msgspec.defstruct("Sized", [("repository", str), ("size", int | None)])
    rows = as_rows([{"repository": "swr/team/api", "size": "1"}], kind)
    with pytest.raises(DamagedRecord, match=r"repository swr/team/api.*int \| null.*size"):
        show(rows, kind, "jsonl")


@pytest.mark.parametrize(
    "text", ["=cmd()", "+1", "-1", "@SUM(A1)", "=", "-", " =1", "\u00a0=1", "\u3000+1", "\uff1d1"]
)
def test_no_cell_is_a_formula(text: str) -> None:
    """A cell that a spreadsheet would compute begins with an apostrophe."""
    assert cells(shown("csv", {"tag": text})) == [["tag"], [f"'{text}"]]


@given(ANY_TEXT)
def test_no_cell_begins_a_formula_whatever_its_text(text: str) -> None:
    """No text of a registry begins a formula or controls a terminal."""
    (_, (cell, end)) = cells(shown("csv", {"tag": text, "end": "x"}))
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert cell.replace("'", "") == escape_control_characters(text).replace("'", "")
    assert end == "x"


@pytest.mark.parametrize("text", ["\t=1", "\r=1", "\n=1", "\r\n@x"])
def test_no_cell_hides_a_formula_behind_an_end_of_line(text: str) -> None:
    """Escaped tabs and line ends do not begin a cell either."""
    (_, (cell,)) = cells(shown("csv", {"tag": text}))
    assert cell == f"'{escape_control_characters(text)}"


def test_no_part_of_a_cell_is_a_formula_elsewhere() -> None:
    """If semicolons separate cells, the text after one is not a formula either."""
    (_, (cell,)) = cells(shown("csv", {"tag": "a;=1;b; @x"}))
    assert cell == "a;'=1;b;' @x"


def test_numbers_stay_numbers_in_csv() -> None:
    """Numbers, also negative ones, are not escaped; None is empty; booleans are words."""
    row = {"size": -1, "digest": None, "stale": True, "fresh": False}
    assert shown("csv", row) == "size,digest,stale,fresh\n-1,,yes,no\n"


@given(ANY_TEXT)
def test_a_table_is_escaped_whatever_its_text(text: str) -> None:
    """A row of a table stays on one line, and has nothing that a terminal interprets."""
    table = shown("table", {"tag": text, "end": "|"})
    assert table.count("\n") == 2
    body = table.split("\n")[1]
    assert escape_control_characters(body) == body
    assert escape_control_characters(text) in body


def test_markup_in_the_data_is_text() -> None:
    """Text that looks like markup or an emoji to rich is shown unchanged."""
    text = "[bold red]v1[/] [link=https://example.com]x[/link] :smile:"
    assert text in shown("table", {"tag": text})


def test_a_plain_table_keeps_every_value() -> None:
    """However long the rows are, nothing is truncated, and no line is too wide."""
    row = {f"column{n}": DIGEST for n in range(20)} | {"detail": f"head {'0' * 64}"}
    text = shown("table", row)
    assert text.count(DIGEST) == 20
    assert "0" * 64 in text
    assert max(map(len, text.splitlines())) <= WIDTH


def test_a_hostile_tag_on_a_terminal_brings_no_escapes() -> None:
    """On a terminal, the only escape sequences are those of the table."""
    text = shown("table", {"tag": HOSTILE, "digest": None, "stale": True}, terminal=True)
    for part in ("\x1b[31m", "\x1b]0;", "\x07", "\x9b", "\u202e", "\u2028", "\r"):
        assert part not in text
    assert "yes" in text

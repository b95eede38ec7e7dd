"""How rows are shown: each format complete, and harmless to what reads it."""

import csv
import io
import json
from contextlib import redirect_stdout
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagsync.cli.output import FORMATS, show
from tagsync.escaping import escape_control_characters

HOSTILE = "\x1b[31mred\x1b]0;title\x07\r\nforged\u202egnp\u2028\x9b2J"
DIGEST = f"sha256:{'0123456789abcdef' * 4}"

ANY_TEXT = st.text(st.characters(codec=None), max_size=30)


class Terminal(io.StringIO):
    """Takes text, and says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def shown(output_format: str, *rows: dict[str, Any], terminal: bool = False) -> str:
    """What is printed for rows that all have the columns of the first."""
    stream = Terminal() if terminal else io.StringIO()
    with redirect_stdout(stream):
        show(rows, list(rows[0]), output_format)
    return stream.getvalue()


def cells(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


@pytest.mark.parametrize("output_format", FORMATS)
def test_only_the_columns_are_shown(output_format: str) -> None:
    """A row may hold more than is asked for; the columns come in the order that is asked for."""
    stream = io.StringIO()
    with redirect_stdout(stream):
        show([{"a": 1, "hidden": "x", "b": 2}], ["b", "a"], output_format)
    text = stream.getvalue()
    assert "hidden" not in text
    assert "x" not in text
    assert text.index("b") < text.index("a")


def test_no_rows_are_still_an_answer() -> None:
    """Without rows there is an empty list, nothing, or the header alone."""
    texts: dict[str, str] = {}
    for output_format in FORMATS:
        stream = io.StringIO()
        with redirect_stdout(stream):
            show([], ["repository", "tag"], output_format)
        texts[output_format] = stream.getvalue()
    assert json.loads(texts["json"]) == []
    assert texts["jsonl"] == ""
    assert texts["csv"] == "repository,tag\n"
    assert texts["table"].split() == ["repository", "tag"]


def test_json_keeps_types() -> None:
    """Numbers, truth and nothing are themselves for a program, and text is not changed."""
    row = {"id": 1, "stale": False, "digest": None, "tag": HOSTILE, "seconds": 0.5}
    assert json.loads(shown("json", row, row)) == [row, row]
    assert [json.loads(line) for line in shown("jsonl", row, row).splitlines()] == [row, row]


def test_json_is_harmless_as_bytes() -> None:
    """JSON printed on a terminal holds no character that the terminal would obey."""
    for output_format in ("json", "jsonl"):
        text = shown(output_format, {"tag": HOSTILE})
        assert text.isascii()
        assert text.replace("\n", "").isprintable()


def test_jsonl_is_one_line_a_row() -> None:
    """Line breaks in the data do not break lines."""
    assert shown("jsonl", {"tag": "a\nb\u2028c"}, {"tag": "d"}).count("\n") == 2


def test_the_fields_of_a_change_are_json_in_json() -> None:
    """What the database keeps as JSON text is not text within the JSON."""
    fields = {"is_trusted": [False, True]}
    (row,) = json.loads(shown("json", {"fields": json.dumps(fields)}))
    assert row == {"fields": fields}


@pytest.mark.parametrize(
    "text", ["=cmd()", "+1", "-1", "@SUM(A1)", "=", "-", " =1", "\u00a0=1", "\u3000+1", "\uff1d1"]
)
def test_no_cell_is_a_formula(text: str) -> None:
    """A cell that a spreadsheet would compute begins with an apostrophe instead."""
    assert cells(shown("csv", {"tag": text})) == [["tag"], [f"'{text}"]]


@given(ANY_TEXT)
def test_no_cell_begins_a_formula_whatever_its_text(text: str) -> None:
    """Whatever a registry sends, a cell neither begins a formula nor controls a terminal."""
    (_, (cell, end)) = cells(shown("csv", {"tag": text, "end": "x"}))
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert cell.replace("'", "") == escape_control_characters(text).replace("'", "")
    assert end == "x"


@pytest.mark.parametrize("text", ["\t=1", "\r=1", "\n=1", "\r\n@x"])
def test_no_cell_hides_a_formula_behind_an_end_of_line(text: str) -> None:
    """Tabs and ends of lines, written out, do not begin a cell either."""
    (_, (cell,)) = cells(shown("csv", {"tag": text}))
    assert cell == f"'{escape_control_characters(text)}"


def test_no_part_of_a_cell_is_a_formula_elsewhere() -> None:
    """Where semicolons separate cells, what follows one is no formula either."""
    (_, (cell,)) = cells(shown("csv", {"tag": "a;=1;b; @x"}))
    assert cell == "a;'=1;b;' @x"


def test_numbers_stay_numbers_in_csv() -> None:
    """A number, negative ones too, is no formula; nothing is an empty cell; truth is a word."""
    row = {"size": -1, "digest": None, "stale": True, "fresh": False}
    assert shown("csv", row) == "size,digest,stale,fresh\n-1,,yes,no\n"


@given(ANY_TEXT)
def test_a_table_is_harmless_whatever_its_text(text: str) -> None:
    """A row of a table stays on its line, and holds nothing that a terminal would obey."""
    table = shown("table", {"tag": text, "end": "|"})
    assert table.count("\n") == 2
    body = table.split("\n")[1]
    assert escape_control_characters(body) == body
    assert escape_control_characters(text) in body


def test_markup_in_the_data_is_text() -> None:
    """What the table's library would take for markup or an emoji is shown as it is."""
    text = "[bold red]v1[/] [link=https://example.com]x[/link] :smile:"
    assert text in shown("table", {"tag": text})


def test_a_table_off_a_terminal_keeps_every_digit() -> None:
    """Off a terminal nothing is cut or folded, however long the rows are."""
    row = {f"column{n}": DIGEST for n in range(20)} | {"fields": '{"path": ["a", "b"]}'}
    _, body = shown("table", row).splitlines()
    assert body.split("  ")[:20] == [DIGEST] * 20
    assert '{"path": ["a", "b"]}' in body


def test_a_table_on_a_terminal_is_short() -> None:
    """A person sees the first digits of a digest, and the names of the fields that changed."""
    row = {"kind": "updated", "digest": DIGEST, "fields": '{"path": ["a", "b"], "size": [1, 2]}'}
    text = shown("table", row, terminal=True)
    assert "sha256:0123456789ab " in text
    assert DIGEST not in text
    assert "path, size" in text
    assert "path" not in shown("table", {**row, "kind": "added"}, terminal=True)


def test_a_hostile_tag_on_a_terminal_brings_no_escapes() -> None:
    """On a terminal the only escapes are the table's own."""
    text = shown("table", {"tag": HOSTILE, "digest": None, "stale": True}, terminal=True)
    for part in ("\x1b[31m", "\x1b]0;", "\x07", "\x9b", "\u202e", "\u2028", "\r"):
        assert part not in text
    assert "yes" in text

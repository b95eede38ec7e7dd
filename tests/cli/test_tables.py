"""The renderer of tables: what is shown at which width, and what is never cut."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagsync.cli.layout import cells
from tagsync.cli.tables import (
    PART,
    Column,
    Line,
    Table,
    View,
    aligned_tables,
    render,
    repository_column,
    tag_column,
)
from tagsync.escaping import escape_control_characters
from tests.support.terminals import LETTERS, WIDTHS, measured, plain

NOW = datetime(2026, 5, 3, 12, 0, tzinfo=UTC)
DIGEST = f"sha256:{'0123456789abcdef' * 4}"
TIME = "2026-05-03T11:57:12.345Z"

COLUMNS = (
    repository_column(common=False),
    tag_column(),
    Column("digest", "digest", line=2),
    Column("changed_at", "time", line=2, optional=1),
    Column("size", "size", optional=2),
    Column("detail", "cut", optional=3),
)


def names(longest: int) -> st.SearchStrategy[str]:
    """Names of up to this many cells, of narrow and wide letters and combining marks."""
    texts = st.text(st.sampled_from(LETTERS), min_size=1, max_size=longest)
    return texts.filter(lambda text: measured(text) <= longest and measured(text[0]) > 0)


def rows(repository: int, tag: int) -> st.SearchStrategy[dict[str, Any]]:
    """Rows whose names have at most these many cells."""
    return st.fixed_dictionaries(
        {
            "repository": names(repository),
            "tag": names(tag),
            "digest": st.sampled_from([DIGEST, f"sha512:{'ab' * 64}", None]),
            "changed_at": st.just(TIME),
            "size": st.integers(0, 10**15),
            "detail": st.text(st.sampled_from("ab c"), max_size=300),
        }
    )


def shown(
    shown_rows: Sequence[dict[str, Any]],
    width: int,
    columns: Sequence[Column] = COLUMNS,
    **options: Any,
) -> list[str]:
    return list(render([Table(columns, shown_rows)], View(width, NOW, **options)))


@pytest.mark.parametrize("width", WIDTHS)
@given(st.lists(rows(255, 128), min_size=1, max_size=6))
def test_no_name_is_cut_and_no_line_is_too_wide(
    width: int, given_rows: list[dict[str, Any]]
) -> None:
    """At every width each name and digest is there as a whole, and each line fits."""
    for full in (False, True):
        lines = shown(given_rows, width, full=full)
        assert max(map(measured, lines)) <= width
        text = "".join(line.strip() for line in lines)
        for row in given_rows:
            assert row["repository"] in text
            assert row["tag"] in text
            if row["digest"]:
                algorithm, digits = row["digest"].split(":")
                short = digits[:12] if algorithm == "sha256" else f"sha512:{digits[:12]}"
                assert (row["digest"] if full else short) in text


@pytest.mark.parametrize("width", WIDTHS)
@given(
    st.lists(rows(60, 40), min_size=1, max_size=4), st.lists(rows(255, 128), min_size=0, max_size=3)
)
def test_a_row_takes_two_lines_at_most(
    width: int, short: list[dict[str, Any]], long: list[dict[str, Any]]
) -> None:
    """Names of 60 and tags of 40 cells take two lines, also beside longer ones."""
    marked = [
        column._replace(style=lambda row: "ok" if any(row is each for each in short) else "")
        for column in COLUMNS
    ]
    lines = shown([*long, *short], width, marked, color=True)
    assert sum("\x1b[32m" in line for line in lines) <= 2 * len(short)
    assert all(measured(plain(line)) <= width for line in lines)


@given(rows(255, 128))
def test_columns_are_left_out_in_a_fixed_order(row: dict[str, Any]) -> None:
    """A wider terminal never shows fewer columns in a form, the optional ones last."""
    row = {**row, "digest": DIGEST, "detail": "x" * 30}
    counts = []
    for width in range(40, 300, 7):
        text = shown([row], width)[0]
        present = [name in text for name in ("digest", "changed_at", "size", "detail")]
        if present[0]:  # the digest is on the first line of a row of one line
            assert present == sorted(present, reverse=True)
            counts.append(sum(present))
    assert counts == sorted(counts)
    assert counts[-1] == 4


def test_rows_become_two_lines() -> None:
    """Columns are left out first, and then a row takes two lines."""
    row = {
        **dict.fromkeys(("detail", "size")),
        "repository": "swr/" + "r" * 50,
        "tag": "t" * 30,
        "digest": DIGEST,
        "changed_at": TIME,
    }
    assert [len(shown([row], width)) for width in (200, 118, 117, 101, 100, 99, 80)] == [
        *(2, 2, 2, 2, 2, 4, 4)
    ]
    assert "changed_at" in shown([row], 118)[0]
    assert "changed_at" not in shown([row], 117)[0]
    assert shown([row], 80)[2:] == [
        row["repository"],
        f"  {'t' * 30}  0123456789ab  2026-05-03 11:57",
    ]


def test_long_names_break_where_people_read_them() -> None:
    """A name that is too long gets lines of its own, broken after a separator."""
    row = {
        **dict.fromkeys(("detail", "size", "changed_at")),
        "repository": f"swr/{'team/' * 20}api",
        "tag": f"{'release-1.' * 9}0",
        "digest": DIGEST,
    }
    *_, first, second, third, fourth, rest = shown([row], 80)
    assert (first, second) == (f"swr/{'team/' * 15}", f"{'team/' * 5}api")
    assert (third, fourth) == ("release-1." * 8, "release-1.0")
    assert rest.strip() == "0123456789ab"


def test_a_name_of_its_own_line_takes_no_third_one() -> None:
    """Beside a name that is too wide for its line, the rest shares one line."""
    columns = (
        Column("changed_at", "time"),
        repository_column(common=False),
        tag_column(),
        Column("digest", "digest", line=2),
    )
    row = {"repository": "r" * 64, "tag": "latest", "digest": DIGEST, "changed_at": TIME}
    assert list(render([Table(columns, [row], header=False)], View(80, NOW))) == [
        row["repository"],
        "  2026-05-03 11:57  latest  0123456789ab",
    ]


@pytest.mark.parametrize(
    ("text", "width"),
    [("latest", 6), ("e\u0301", 1), ("版本", 4), ("ｱ", 1), ("ﾞ", 1), ("\u2764\ufe0f", 2), ("", 0)],
)
def test_width_of_text(text: str, width: int) -> None:
    """A wide character has two cells, and a combining mark none."""
    assert cells(text) == width


def test_an_equal_value_becomes_the_heading() -> None:
    """A repository that all rows share is written once, above them."""
    row = {**dict.fromkeys(("detail", "size", "changed_at")), "tag": "a", "digest": DIGEST}
    one, other = {**row, "repository": "swr/api"}, {**row, "repository": "swr/web"}
    columns = [column._replace(common=column.key == "repository") for column in COLUMNS]
    assert shown([one, {**one, "tag": "b"}], 80, columns) == [
        *("swr/api", "tag  digest", "a    0123456789ab", "b    0123456789ab")
    ]
    assert shown([one, other], 80, columns)[0].split() == ["repository", "tag", "digest"]
    assert shown([one], 80, columns)[0].split() == ["repository", "tag", "digest"]


def test_numbers_are_right_aligned() -> None:
    """Sizes have units, and numbers and sizes end at the same cell."""
    columns = (Column("n", "number"), Column("size", "size"), Column("tag", "name"))
    table = [{"n": 5, "size": 999, "tag": "a"}, {"n": 12345, "size": 1_304_902, "tag": "b"}]
    assert shown(table, 80, columns)[1:] == ["     5   999 B  a", "12,345  1.3 MB  b"]


def test_texts_are_wrapped_or_truncated() -> None:
    """A text wraps in its column; an optional remark ends with a mark unless full."""
    words = "the registry refuses the login " * 4
    row = {"tag": "v1", "detail": words.strip()}
    wrapped = (Column("tag", "name"), Column("detail", "text"))
    lines = shown([row], 60, wrapped)
    assert " ".join(line.removeprefix("v1").strip() for line in lines[1:]) == row["detail"]
    assert all(line[:5].strip() in {"", "v1"} for line in lines[1:])
    truncated = (Column("tag", "name"), Column("detail", "cut"))
    assert shown([row], 60, truncated)[1].endswith("…")
    assert shown([row], 60, truncated, encoding="ascii")[1].endswith("...")
    assert len(shown([row], 60, truncated, full=True)) == len(lines)


def test_colours_have_a_meaning_and_no_width() -> None:
    """Colour changes no position, and without colour there is no escape sequence."""
    columns = (
        Column("kind", "text", style=lambda row: row["kind"]),
        Column("tag", "name"),
    )
    table = [{"kind": "moved", "tag": "a"}, {"kind": "deleted", "tag": "b"}]
    coloured = shown(table, 80, columns, color=True)
    assert coloured[1] == "\x1b[33mmoved\x1b[0m    a"
    assert [plain(line) for line in coloured] == shown(table, 80, columns)


HOSTILE = "\x1b[31mred\x1b]0;title\x07\r\nforged\u202egnp\u2028\x9b2J"


def test_hostile_text_is_escaped() -> None:
    """Control characters of a name or a sentence are shown, not sent to the terminal."""
    table = Table((Column("tag", "name"), Column("n", "number")), [{"tag": HOSTILE, "n": 1}])
    lines = list(render([table, Line(HOSTILE)], View(200, NOW)))
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    assert escape_control_characters(HOSTILE) in lines[1]


def test_names_outside_the_encoding_are_escaped_before_they_are_measured() -> None:
    """The escape sequence of a character that the output lacks counts with its width."""
    table = [{"tag": "版本", "n": 1}, {"tag": "v1", "n": 2}]
    lines = shown(table, 80, (Column("tag", "name"), Column("n", "number")), encoding="ascii")
    assert lines[1:] == [r"\u7248\u672c  1", "v1            2"]


@given(st.text(st.sampled_from(LETTERS + " "), max_size=200), st.integers(20, 90))
def test_sentences_fit(text: str, width: int) -> None:
    """A sentence wraps at spaces, and has all its words."""
    lines = list(render([Line(text, indent=2)], View(width, NOW)))
    assert all(measured(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


@pytest.mark.parametrize("width", [20, 40])
@given(st.lists(rows(255, 128), min_size=1, max_size=3))
def test_narrow_terminals(width: int, given_rows: list[dict[str, Any]]) -> None:
    """Even a very narrow terminal shows whole names and digests."""
    lines = shown(given_rows, width)
    assert max(map(measured, lines)) <= width
    text = "".join(line.strip() for line in lines)
    assert all(row["repository"] in text and row["tag"] in text for row in given_rows)


def test_words_that_are_too_wide_come_after_their_line() -> None:
    """A change too wide for its line follows the tag and the kind, which stay together."""
    columns = (
        repository_column(common=False),
        tag_column(),
        Column("kind", "name", line=2),
        Column("change", "words", line=2),
    )
    change = f"{DIGEST} -> {DIGEST.replace('0', 'f')}"
    row = {"repository": "swr/api", "tag": "v1", "kind": "moved", "change": change}
    *_, repository, tag, old, new = shown([row], 80, columns)
    assert (repository, tag) == ("swr/api", "  v1   moved")
    assert [old, new] == [f"  {DIGEST} ->", f"  {DIGEST.replace('0', 'f')}"]
    short = {**row, "change": DIGEST.partition(":")[2]}
    assert shown([row, short], 86, columns)[-1] == f"  v1   moved  {short['change']}"


# --- tables in parts ------------------------------------------------------------------------------

PARTS = (Column("tag", "name"), Column("size", "size"), Column("detail", "name", optional=1))


def parts_of(count: int, *last: dict[str, Any]) -> list[dict[str, Any]]:
    rows = [
        {"tag": f"v{number:04}", "size": number % 100, "detail": "x"} for number in range(count)
    ]
    return [*rows, *last]


@pytest.mark.parametrize("count", [0, 1, PART, PART + 1, 2 * PART])
@pytest.mark.parametrize("header", [True, False])
def test_parts_look_like_one_table(count: int, header: bool) -> None:
    """Rows in parts have the lines of one table, with one header."""
    rows, view = parts_of(count), View(80, NOW)
    in_parts = render(aligned_tables(PARTS, rows, header=header), view)
    assert list(in_parts) == list(render([Table(PARTS, rows, header)], view))


def test_a_part_keeps_the_layout_of_those_before_it() -> None:
    """A wide name changes the layout from its part on; later parts keep the columns in line."""
    wide = {"tag": "w" * 60, "size": 1, "detail": "d" * 30}
    rows = parts_of(PART, wide, *parts_of(PART))
    lines = list(render(aligned_tables(PARTS, rows, header=False), View(80, NOW)))
    assert lines[0] == "v0000   0 B  x"
    assert lines[PART] == f"{'w' * 60}   1 B"
    assert lines[-1] == f"v0999{' ' * 55}  99 B"


def test_lines_are_there_before_all_rows_are_read() -> None:
    """The lines of a part are shown before the next part is read."""
    read = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal read
        for row in parts_of(3 * PART):
            read += 1
            yield row

    lines = render(aligned_tables(PARTS, rows()), View(80, NOW))
    next(lines)
    assert read == PART
    for _ in range(PART + 1):
        next(lines)
    assert read == 2 * PART

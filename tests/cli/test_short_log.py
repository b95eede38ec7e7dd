"""Log lines for a person: what they say, their width, and what is withheld."""

import io
from contextlib import redirect_stderr
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from tagsync.cli.short_log import ShortLines, short_lines
from tagsync.escaping import escape_control_characters
from tests.support.terminals import LETTERS, measured

WARNING: dict[str, Any] = {"timestamp": "2026-11-26T22:40:50.878235Z", "level": "warning"}
ERROR: dict[str, Any] = {**WARNING, "level": "error"}
API = {"registry": "swr", "repository": "swr/team-a/api"}
HELD = {
    **WARNING,
    "event": "sync.held",
    **API,
    "tags": 2,
    "counts_from": "2026-11-26T22:45:00.000Z",
    "requests": 1,
    "bytes": 2363,
    "seconds": 0.026,
    "detail": "the listing would delete 12 of 14 tags: if this is intended, accept it",
}
DIGEST = f"sha256:{'0123456789abcdef' * 4}"


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (HELD, f"22:40 warning sync.held swr/team-a/api: {HELD['detail']}"),
        (
            {**HELD, "dry_run": True, "detail": "why"},
            "22:40 warning sync.held (dry run) swr/team-a/api: why",
        ),
        (
            {**ERROR, "event": "sync.failed", **API, "reasons": "not_found", "error": "it is gone"},
            "22:40 error sync.failed swr/team-a/api: it is gone",
        ),
        (
            {
                **ERROR,
                "event": "watch.empty",
                "registry": "swr",
                "repositories": ["a/*", "b/*"],
                "exclude": [],
                "error": "no match",
            },
            "22:40 error watch.empty swr/a/*, swr/b/*: no match",
        ),
        (
            {
                **WARNING,
                "event": "image.unverified",
                **API,
                "tag": "v1",
                "digest": DIGEST,
                "image_id": None,
            },
            "22:40 warning image.unverified swr/team-a/api:v1: digest 0123456789ab",
        ),
        (
            {**WARNING, "event": "tag.skipped", **API, "names": ["A", "B"], "count": 2},
            "22:40 warning tag.skipped swr/team-a/api: names A B, count 2",
        ),
        (
            {**WARNING, "event": "list.distrusted", "registry": "hub"},
            "22:40 warning list.distrusted hub",
        ),
        ({**WARNING, "event": "clock.behind"}, "22:40 warning clock.behind"),
    ],
    ids=lambda value: value["event"] if isinstance(value, dict) else "",
)
def test_line_has_what_a_person_needs(event: dict[str, Any], expected: str) -> None:
    """A line has time, level, event and name, and then the message or the fields."""
    assert list(short_lines(event, 200)) == [expected]


@given(st.integers(20, 120), st.text(st.sampled_from(f"{LETTERS} "), max_size=300))
def test_lines_wrap_at_words(width: int, detail: str) -> None:
    """No line is wider than the terminal, and all words are there."""
    lines = list(short_lines({**HELD, "detail": detail}, width))
    assert all(measured(line) <= width for line in lines)
    assert all(line.startswith("  ") for line in lines[1:])
    assert "".join(detail.split()) in "".join("".join(lines).split())


def test_hostile_text_is_escaped() -> None:
    """No field has a character that a terminal interprets; a traceback keeps its lines."""
    hostile = "\x1b[31mred\r\nforged\u202egnp\u2028\x9b2J"
    for event in ({**HELD, "detail": hostile}, {**WARNING, "event": "a", "names": [hostile]}):
        lines = list(short_lines(event, 200))
        assert all(line.isprintable() for line in lines)
        assert escape_control_characters(hostile) in lines[0]
    failed = {**ERROR, "event": "pass.failed", "exception": "    Traceback\n    line"}
    assert list(short_lines(failed, 80)) == ["22:40 error pass.failed", "    Traceback\n    line"]


def test_withheld_lines_come_only_if_the_result_does_not() -> None:
    """An event that the result shows is dropped, and written if there is no result."""
    lines = ShortLines(lambda: 200, color=False, withheld={"sync.held"})
    with redirect_stderr(io.StringIO()) as written:
        with pytest.raises(structlog.DropEvent):
            lines(None, "warning", dict(HELD))
        assert lines(None, "warning", {**HELD, "event": "other"}).startswith("22:40 warning other")
        assert written.getvalue() == ""
        lines.write_withheld()
        lines.write_withheld()
    assert written.getvalue() == f"22:40 warning sync.held swr/team-a/api: {HELD['detail']}\n"


def test_the_level_has_a_colour() -> None:
    """Only the level is coloured, by its meaning."""
    lines = ShortLines(lambda: 80, color=True)
    text = lines(None, "error", {**ERROR, "event": "an.error", **API})
    assert text == "22:40 \x1b[31merror\x1b[0m an.error swr/team-a/api"

"""How tagsync logs: harmless to terminals, JSON for machines, lines for people."""

import io
import json
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import redirect_stderr
from typing import Final

import pytest
import stamina.instrumentation
import structlog
from hypothesis import given
from hypothesis import strategies as st

from tagsync.escaping import escape_control_characters
from tagsync.log import LEVELS, Format, configure

HIDDEN: Final = ("Cc", "Cf", "Cs", "Zl", "Zp")

HOSTILE = "\x1b[31mred\x1b]0;title\x07\r\nforged: line\u202egnp\u2028\u200b\x9b2J"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Gives the process back the logging that it had."""
    yield
    structlog.reset_defaults()
    stamina.instrumentation.set_on_retry_hooks(None)


class Terminal(io.StringIO):
    """Takes text, and says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def written(log_format: Format, *, level: str = "debug", terminal: bool = False) -> str:
    """What one event at each level leaves on standard error."""
    stream = Terminal() if terminal else io.StringIO()
    with redirect_stderr(stream):
        configure(log_format, level)
        log = structlog.get_logger()
        for name in LEVELS:
            getattr(log, name)(f"tag.{name}", tag=HOSTILE, moved=True, change_id=7, detail=None)
    return stream.getvalue()


def is_hidden(character: str) -> bool:
    return unicodedata.category(character) in HIDDEN


@given(st.text(st.characters(codec=None)))
def test_harmless_text_holds_nothing_that_a_terminal_obeys(text: str) -> None:
    """Whatever the text, no control, direction mark, separator or half of a pair is left in it."""
    assert not any(map(is_hidden, escape_control_characters(text)))


@given(st.text(st.characters(exclude_categories=HIDDEN)))
def test_what_can_be_read_stays_as_it_is(text: str) -> None:
    """Text without anything hidden, in whatever script, is not changed."""
    assert escape_control_characters(text) == text


@given(st.text(st.characters(codec=None)))
def test_harmless_text_can_be_written_anywhere(text: str) -> None:
    """The result is text that UTF-8 can carry, and making it harmless again changes nothing."""
    result = escape_control_characters(text)
    result.encode()
    assert escape_control_characters(result) == result


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("v1\u202e1v", r"v1\u202e1v"),
        ("\x9b31m", r"\x9b31m"),
        ("\ud800", r"\ud800"),
        ("\u2028", r"\u2028"),
        ("\U000e0041", r"\U000e0041"),
        ("grün ✓ 版本", "grün ✓ 版本"),
    ],
)
def test_what_is_hidden_is_written_out(text: str, shown: str) -> None:
    """What a terminal would obey is shown as the escape by which Python writes it."""
    assert escape_control_characters(text) == shown


@pytest.mark.parametrize("terminal", [False, True])
def test_json_is_one_object_a_line(terminal: bool) -> None:
    """JSON has one object a line with event, level, time and the fields as they were given."""
    lines = written("json", terminal=terminal).splitlines()
    assert len(lines) == len(LEVELS)
    for line, level in zip(lines, LEVELS, strict=True):
        assert line.isascii()
        assert line.isprintable()
        event = json.loads(line)
        assert event.pop("timestamp").endswith("Z")
        assert event == {
            "event": f"tag.{level}",
            "level": level,
            "tag": HOSTILE,
            "moved": True,
            "change_id": 7,
            "detail": None,
        }


def test_the_console_without_a_terminal_has_no_colours() -> None:
    """Lines for people, off a terminal, are plain and harmless."""
    lines = written("console").split("\n")
    assert lines.pop() == ""
    assert len(lines) == len(LEVELS)
    assert not any(is_hidden(character) for line in lines for character in line)
    assert all("tag." in line and "change_id=7" in line for line in lines)


def test_the_console_on_a_terminal_has_only_our_own_colours() -> None:
    """On a terminal there are colours, and no escape that came with the data."""
    text = written("console", terminal=True)
    assert "\x1b[" in text
    assert len(text.splitlines()) == len(LEVELS)
    for part in ("\x1b[31mred", "\x1b]0;", "\x07", "\x9b", "\u202e", "\u2028", "\r"):
        assert part not in text


def test_auto_is_json_off_a_terminal_and_lines_on_one() -> None:
    """Left to itself, the log is JSON for a machine and lines for a person."""
    assert written("auto").startswith("{")
    on_terminal = written("auto", terminal=True)
    assert not on_terminal.startswith("{")
    assert "\x1b[" in on_terminal


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_below_the_level_is_not_logged(level: str) -> None:
    """The level is the least that is logged."""
    events = [json.loads(line)["level"] for line in written("json", level=level).splitlines()]
    assert events == list(LEVELS[LEVELS.index(level) :])


def test_standard_error_is_looked_up_when_a_line_is_written() -> None:
    """What replaces standard error for a while, as a progress bar does, gets the lines."""
    configure("json", "info")
    log = structlog.get_logger()
    first, second = io.StringIO(), io.StringIO()
    before = sys.stderr
    for stream in (first, second):
        with redirect_stderr(stream):
            log.info("sync.finished")
    assert sys.stderr is before
    assert len(first.getvalue().splitlines()) == len(second.getvalue().splitlines()) == 1


def test_a_request_that_is_tried_again_is_logged_for_debugging() -> None:
    """What stamina tries again leaves a line with why and how often, at the level of debugging."""
    stream = io.StringIO()
    with redirect_stderr(stream):
        configure("json", "debug")
        for attempt in stamina.retry_context(OSError, attempts=2, wait_initial=0, wait_jitter=0):
            with attempt:
                if attempt.num == 1:
                    raise OSError("no route")
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert line["event"] == "attempt.failed"
    assert line["level"] == "debug"
    assert (line["error"], line["attempt"]) == ("no route", 1)


def test_a_short_hostile_name_is_harmless_on_the_console() -> None:
    """Also a value that needs no quotes is written out, not obeyed."""
    stream = io.StringIO()
    with redirect_stderr(stream):
        configure("console", "info")
        structlog.get_logger().info("tag.added", tag="\x1b[31mred")
    assert "\x1b" not in stream.getvalue()
    assert r"\x1b[31mred" in stream.getvalue()

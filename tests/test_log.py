"""The log: JSON for machines, lines for people, escaped for terminals."""

import io
import json
import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import redirect_stderr
from threading import Thread
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
def _restore_logging() -> Iterator[None]:
    """Reset the logging of the process after each test."""
    yield
    structlog.reset_defaults()
    stamina.instrumentation.set_on_retry_hooks(None)


class Terminal(io.StringIO):
    """A text stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def written(log_format: Format, *, level: str = "debug", terminal: bool = False) -> str:
    """Log one event at each level, and return what is on standard error."""
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
def test_escaped_text_has_no_hidden_characters(text: str) -> None:
    """No control character, direction mark, separator or surrogate is left in any text."""
    assert not any(map(is_hidden, escape_control_characters(text)))


@given(st.text(st.characters(exclude_categories=HIDDEN)))
def test_readable_text_is_not_changed(text: str) -> None:
    """Text without hidden characters is not changed, in any script."""
    assert escape_control_characters(text) == text


@given(st.text(st.characters(codec=None)))
def test_escaped_text_can_be_encoded_and_escaped_again(text: str) -> None:
    """UTF-8 can encode the result, and escaping it again changes nothing."""
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
def test_hidden_characters_become_escapes(text: str, shown: str) -> None:
    """A character that a terminal interprets is shown as Python's escape sequence for it."""
    assert escape_control_characters(text) == shown


@pytest.mark.parametrize("terminal", [False, True])
def test_json_is_one_object_per_line(terminal: bool) -> None:
    """Each line is a JSON object with event, level, time and the unchanged fields."""
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


def test_json_begins_with_time_level_and_event() -> None:
    """The fields that every event has come first, in this order."""
    for line in written("json").splitlines():
        assert list(json.loads(line))[:3] == ["timestamp", "level", "event"]


@pytest.mark.parametrize("log_format", ["auto", "console"])
def test_lines_for_the_journal_have_the_priority_of_their_level(log_format: Format) -> None:
    """Each line on the stream to the journal has a priority, also those of a traceback."""
    reading, writing = os.pipe()
    status = os.fstat(writing)
    env = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
    with open(writing, "w") as stream, redirect_stderr(stream):  # noqa: PTH123  a descriptor
        configure(log_format, "debug", env=env)
        log = structlog.get_logger()
        for name in LEVELS:
            getattr(log, name)(f"tag.{name}")
        log.error("daemon.failed", exc_info=ValueError("first\nsecond"))
    with open(reading) as stream:  # noqa: PTH123
        lines = stream.read().splitlines()
    assert [line[:3] for line in lines[:4]] == ["<7>", "<6>", "<4>", "<3>"]
    assert all(line.startswith("<3>") for line in lines[4:])
    if log_format == "auto":
        assert [json.loads(line[3:])["level"] for line in lines] == [*LEVELS, "error"]


def test_the_console_without_a_terminal_has_no_colours() -> None:
    """Lines for people have neither colours nor control characters without a terminal."""
    lines = written("console").split("\n")
    assert lines.pop() == ""
    assert len(lines) == len(LEVELS)
    assert not any(is_hidden(character) for line in lines for character in line)
    assert all("tag." in line and "change_id=7" in line for line in lines)


def test_the_console_on_a_terminal_has_only_our_own_colours() -> None:
    """On a terminal there are colours, and no escape sequence from the data."""
    text = written("console", terminal=True)
    assert "\x1b[" in text
    assert len(text.splitlines()) == len(LEVELS)
    for part in ("\x1b[31mred", "\x1b]0;", "\x07", "\x9b", "\u202e", "\u2028", "\r"):
        assert part not in text


def test_auto_is_json_off_a_terminal_and_lines_on_one() -> None:
    """By default the log is JSON, and lines for people on a terminal."""
    assert written("auto").startswith("{")
    on_terminal = written("auto", terminal=True)
    assert not on_terminal.startswith("{")
    assert "\x1b[" in on_terminal


@pytest.mark.parametrize("level", LEVELS)
def test_events_below_the_level_are_not_logged(level: str) -> None:
    """Only events of at least the configured level are logged."""
    events = [json.loads(line)["level"] for line in written("json", level=level).splitlines()]
    assert events == list(LEVELS[LEVELS.index(level) :])


def test_standard_error_is_looked_up_when_a_line_is_written() -> None:
    """If a progress bar replaces standard error, the lines go to the replacement."""
    configure("json", "info")
    log = structlog.get_logger()
    first, second = io.StringIO(), io.StringIO()
    before = sys.stderr
    for stream in (first, second):
        with redirect_stderr(stream):
            log.info("sync.finished")
    assert sys.stderr is before
    assert len(first.getvalue().splitlines()) == len(second.getvalue().splitlines()) == 1


def test_a_retry_is_logged_at_level_debug() -> None:
    """A retry by stamina is an event with the error and the number of the attempt."""
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


def test_a_short_hostile_name_is_escaped_on_the_console() -> None:
    """A value that the renderer does not quote is escaped, too."""
    stream = io.StringIO()
    with redirect_stderr(stream):
        configure("console", "info")
        structlog.get_logger().info("tag.added", tag="\x1b[31mred")
    assert "\x1b" not in stream.getvalue()
    assert r"\x1b[31mred" in stream.getvalue()


def log_a_bug(log_format: Format, *, terminal: bool = False) -> str:
    """Log an exception whose message is hostile, and return what is on standard error."""
    stream = Terminal() if terminal else io.StringIO()
    with redirect_stderr(stream):
        configure(log_format, "info")
        try:
            raise ValueError(HOSTILE)
        except ValueError as error:
            structlog.get_logger().error("daemon.failed", exc_info=error)
    return stream.getvalue()


def test_a_traceback_is_text_in_json() -> None:
    """A logged exception is one JSON line, with the traceback as text."""
    (line,) = log_a_bug("json").splitlines()
    event = json.loads(line)
    assert event["exception"].startswith("Traceback (most recent call last):\n")
    assert "ValueError" in event["exception"]
    assert "exc_info" not in event
    assert "<traceback object" not in line


@pytest.mark.parametrize("terminal", [False, True])
def test_a_traceback_on_the_console_has_lines_but_no_escape_sequences(terminal: bool) -> None:
    """The traceback keeps its lines, indented so that none can pass for a line of the log."""
    text = log_a_bug("console", terminal=terminal)
    assert "<traceback object" not in text
    first, *rest = text.rstrip("\n").split("\n")
    assert "daemon.failed" in first
    assert rest[0].endswith("    Traceback (most recent call last):")
    assert r"ValueError: \x1b[31mred\x1b]0;title\x07\r" in text
    assert all(line.startswith("    ") for line in rest)
    assert not any(is_hidden(character) for line in rest for character in line)


def logged_lines(*, dry_run: bool = False, first_failures: bool = False) -> list[dict[str, object]]:
    """Return what is logged by two threads and for four failed polls."""
    stream = io.StringIO()
    with redirect_stderr(stream):
        configure("json", "info", dry_run=dry_run, first_failures=first_failures)
        log = structlog.get_logger()
        threads = [Thread(target=log.warning, args=("sync.held",)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        for registry, reasons in (("a", "timeout"), ("a", "timeout"), ("b", "timeout"), ("a", "")):
            log.error("sync.failed", registry=registry, reasons=reasons)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_every_event_of_a_dry_run_is_marked() -> None:
    """Each event has ``dry_run``, whichever thread logs it; without a dry run none has it."""
    marked = logged_lines(dry_run=True)
    assert len(marked) == 6
    assert all(event["dry_run"] is True for event in marked)
    assert not any("dry_run" in event for event in logged_lines())


def test_only_the_first_failure_of_a_registry_is_logged() -> None:
    """Equal failures of one registry are logged once; other events and reasons always."""
    events = logged_lines(first_failures=True)
    assert [event["event"] for event in events].count("sync.held") == 2
    assert [(e["registry"], e["reasons"]) for e in events if e["event"] == "sync.failed"] == [
        ("a", "timeout"),
        ("b", "timeout"),
        ("a", ""),
    ]

"""Priorities for systemd's journal."""

import io
import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TextIO

import pytest

from tagsync.journal import leads_to_journal, with_priority


@pytest.fixture
def pipe() -> Iterator[TextIO]:
    """A stream, as systemd connects standard error to the journal."""
    reading, writing = os.pipe()
    with ExitStack() as stack:
        stack.enter_context(open(reading))  # noqa: PTH123  a descriptor
        yield stack.enter_context(open(writing, "w"))  # noqa: PTH123


def identity(stream: TextIO) -> str:
    """Return the value of ``$JOURNAL_STREAM`` for a stream."""
    status = os.fstat(stream.fileno())
    return f"{status.st_dev}:{status.st_ino}"


def test_a_stream_leads_to_the_journal_if_the_variable_names_it(pipe: TextIO) -> None:
    """Only the stream that the variable names gets priorities, and not one that replaced it."""
    assert leads_to_journal(pipe, {"JOURNAL_STREAM": identity(pipe)})
    assert not leads_to_journal(pipe, {"JOURNAL_STREAM": "1:2"})
    assert not leads_to_journal(pipe, {})
    assert not leads_to_journal(io.StringIO(), {"JOURNAL_STREAM": identity(pipe)})


def test_a_closed_stream_does_not_lead_to_the_journal(pipe: TextIO) -> None:
    """A stream that was closed is no error."""
    env = {"JOURNAL_STREAM": identity(pipe)}
    pipe.close()
    assert not leads_to_journal(pipe, env)


def test_each_line_has_the_priority() -> None:
    """Every line of a text begins with the priority of its level, as syslog numbers it."""
    assert with_priority("a\nb", "error") == "<3>a\n<3>b"
    levels = ("debug", "info", "warning", "error")
    assert [with_priority("", level) for level in levels] == ["<7>", "<6>", "<4>", "<3>"]  # type: ignore[arg-type]

"""The line of progress: what is printed meanwhile stays whole, and above it."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from threading import Event, Thread

import pytest

from tagsync.cli.progress import ProgressLine, progress_line
from tests.support.commands import screen

ERASE = "\r\x1b[2K"


class Terminal(io.StringIO):
    """A text stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


class Broken(Terminal):
    """A terminal that has been hung up."""

    def write(self, _text: str) -> int:
        raise OSError(5, "Input/output error")


def test_the_line_of_progress_is_replaced() -> None:
    """Only the newest progress is visible, and nothing of it after the end."""
    terminal = Terminal()
    line = ProgressLine(terminal, lambda: 80)
    line.show("1/2  0 failed")
    line.show("2/2")
    assert screen(terminal.getvalue()) == ["2/2"]
    line.close()
    assert screen(terminal.getvalue()) == [""]


def test_printed_lines_are_above_the_progress() -> None:
    """A printed line is whole, and the progress is drawn again below it."""
    terminal = Terminal()
    line = ProgressLine(terminal, lambda: 80)
    line.show("1/2")
    line.print_above(terminal, "a warning\n")
    assert screen(terminal.getvalue()) == ["a warning", "1/2"]


def test_a_line_that_is_printed_in_parts_is_not_torn() -> None:
    """The progress is not drawn into a line that has not ended."""
    terminal = Terminal()
    line = ProgressLine(terminal, lambda: 80)
    line.show("1/2")
    line.print_above(terminal, "a ")
    line.show("2/2")
    line.print_above(terminal, "")
    line.print_above(terminal, "row\n")
    assert screen(terminal.getvalue()) == ["a row", "2/2"]


@pytest.mark.parametrize("columns", [0, 1, 5, 80])
def test_the_progress_never_wraps(columns: int) -> None:
    """The progress leaves the last column of the terminal free, however narrow it is."""
    terminal = Terminal()
    ProgressLine(terminal, lambda: columns).show("x" * 100)
    assert len(screen(terminal.getvalue())[-1]) == max(columns - 1, 0)


class Slow(Terminal):
    """A terminal that writes a warning only when it is told to, and notes what overtakes it."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go_on = Event(), Event()

    def write(self, text: str) -> int:
        if "warning" in text:
            self.begun.set()
            assert self.go_on.wait(10)
        return super().write(text)


def test_threads_wait_for_each_other() -> None:
    """While one thread prints a line, another one neither prints nor draws."""
    terminal = Slow()
    line = ProgressLine(terminal, lambda: 80)
    printing = Thread(target=line.print_above, args=(terminal, "a warning\n"))
    drawing = Thread(target=line.show, args=("1/2",))
    printing.start()
    assert terminal.begun.wait(10)
    drawing.start()
    drawing.join(0.1)
    assert terminal.getvalue() == ""
    terminal.go_on.set()
    for thread in (printing, drawing):
        thread.join(10)
    assert screen(terminal.getvalue()) == ["a warning", "1/2"]


def test_both_streams_of_a_terminal_are_printed_above() -> None:
    """In the block both streams are wrapped, and after it both are as before."""
    terminal = Terminal()
    with redirect_stdout(terminal), redirect_stderr(terminal):
        with progress_line() as show:
            show("1/2")
            print("a result")  # noqa: T201  as a command does
            sys.stderr.write("a warning\n")
        assert sys.stdout is sys.stderr is terminal
    assert screen(terminal.getvalue()) == ["a result", "a warning", ""]


def test_a_result_that_is_not_on_the_terminal_has_no_escapes() -> None:
    """If only standard error is a terminal, standard output gets nothing but the result."""
    result, terminal = io.StringIO(), Terminal()
    with redirect_stdout(result), redirect_stderr(terminal), progress_line() as show:
        print("a result, without its end", end="")  # noqa: T201  as a command does
        show("1/2")
        assert screen(terminal.getvalue()) == ["1/2"]
    assert result.getvalue() == "a result, without its end"
    assert ERASE in terminal.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_no_progress_without_a_terminal_or_if_unwanted(terminal: bool) -> None:
    """Without a terminal, or with ``-q``, nothing is drawn."""
    stream = Terminal() if terminal else io.StringIO()
    with redirect_stderr(stream), progress_line(wanted=not terminal) as show:
        show("1/2")
    assert stream.getvalue() == ""


def test_no_progress_on_a_terminal_that_cannot_erase(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dumb terminal would show the escape sequences."""
    monkeypatch.setenv("TERM", "dumb")
    with redirect_stderr(Terminal()) as stream, progress_line() as show:
        show("1/2")
    assert stream.getvalue() == ""


def test_a_terminal_that_is_gone_stops_nothing() -> None:
    """Progress that cannot be shown is no error; a line that cannot be printed is."""
    line = ProgressLine(Broken(), lambda: 80)
    line.show("1/2")
    with pytest.raises(OSError, match="Input/output"):
        line.print_above(Broken(), "a warning\n")
    line.close()

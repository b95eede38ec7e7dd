"""The line of progress: what is printed meanwhile stays whole, and above it."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from threading import Thread

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


def test_threads_do_not_tear_each_others_lines() -> None:
    """Lines of many threads, and progress in between, are all whole."""
    terminal = Terminal()
    line = ProgressLine(terminal, lambda: 80)

    def work(number: int) -> None:
        for count in range(200):
            line.print_above(terminal, f"thread {number} line {count}\n")
            line.show(f"{count}/200")

    threads = [Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    line.close()
    lines = screen(terminal.getvalue())
    assert lines.pop() == ""
    assert sorted(lines) == sorted(f"thread {n} line {c}" for n in range(4) for c in range(200))


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
        show("1/2")
        print("a result")  # noqa: T201  as a command does
    assert result.getvalue() == "a result\n"
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

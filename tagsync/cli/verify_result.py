"""Pure: the rows, the progress and the conclusion of ``verify`` for people."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from tagsync.audit.proof import Link, Proof
from tagsync.cli.formats import count_text, duration_text, number_text
from tagsync.cli.layout import cells
from tagsync.cli.tables import Line, View, render

Row = Mapping[str, Any]

_CHECK: Final = 12
_ROWS: Final = 11
_RESULT: Final = 6
"""Widths of the columns, in cells. They are fixed, because a row is shown before the next one."""

_GAP: Final = "  "
_MINIMUM_SECONDS: Final = 1.0
"""Time after which the time that is left can be estimated, in seconds."""


class Progress:
    """Follows the checks, and estimates how long the rest of them takes."""

    def __init__(self, total: int, began: float) -> None:
        """Begin.

        Args:
            total: About how many rows all checks will read.
            began: When the first check began, in seconds.
        """
        self._total = total
        self._began = began
        self._finished = 0
        self._check = ""
        self._rows = 0

    def text(self, check: str, rows: int, now: float) -> str:
        """Return the progress in one line.

        Args:
            check: The check that runs.
            rows: Number of rows that it has read.
            now: The current time, in seconds.
        """
        if check != self._check:
            self._finished += self._rows
            self._check = check
        self._rows = rows
        done = min(self._finished + rows, self._total)
        percent = 100 * done // max(self._total, 1)
        return f"{check}  {done:,}/{self._total:,} rows  {percent} %{self._left(done, now)}"

    def _left(self, done: int, now: float) -> str:
        seconds = now - self._began
        if not done or seconds < _MINIMUM_SECONDS:
            return ""
        return f"  about {duration_text(seconds * (self._total - done) / done)} left"


def header(view: View) -> str:
    """Return the titles of the columns."""
    titles = ("check".ljust(_CHECK), "rows".rjust(_ROWS), "result".ljust(_RESULT), "detail")
    return _GAP.join(view.paint(title, "heading") for title in titles)


def row_lines(row: Row, view: View) -> Iterator[str]:
    """Yield the lines of a row. A detail that does not fit beside the result is below it."""
    style = "failed" if row["result"] == "fault" else str(row["result"])
    line = _GAP.join(
        (
            row["check"].ljust(_CHECK),
            number_text(row["rows"]).rjust(_ROWS),
            view.paint(row["result"].ljust(_RESULT), style),
        )
    )
    detail = view.show(row["detail"] or "")
    width = _CHECK + _ROWS + _RESULT + 3 * len(_GAP) + cells(detail)
    if width <= view.width:
        yield f"{line}{_GAP}{detail}".rstrip()
        return
    yield line.rstrip()
    yield from render([Line(detail, indent=len(_GAP))], view)


def conclusion(rows: Sequence[Row], proof: Proof | None, heads: Collection[str], view: View) -> str:
    """Return what the checks have proven, in words.

    Args:
        rows: The rows of all checks.
        proof: The newest links of the chain. None if a check found a fault.
        heads: The heads that a witness has kept.
        view: Shows times.
    """
    faults = [str(row["check"]) for row in rows if row["result"] == "fault"]
    if faults or proof is None:
        return (
            f"{len(faults)} of {count_text(len(rows), 'check')} found a fault"
            f" ({', '.join(faults)}): the record was altered or damaged. Keep the file as evidence,"
            " and compare it with a backup."
        )
    passed = f"All {count_text(len(rows), 'check')} passed"
    if proof.newest is None:
        return f"{passed}: the record is consistent, and has no change yet."
    newest = _name(proof.newest, view)
    if proof.witnessed is None:
        return (
            f"{passed}: the record has not been altered up to {newest}, unless its hashes were"
            " computed anew. A head that was logged or kept elsewhere would rule that out:"
            " --head HASH."
        )
    given = "head proves" if len(set(heads)) == 1 else "heads prove"
    proven = f"{passed}, and the given {given} that the record has not been altered up to"
    if proof.witnessed == proof.newest:
        return f"{proven} {newest}, the newest one."
    later = count_text(proof.newest.number - proof.witnessed.number, "later change")
    return (
        f"{proven} {_name(proof.witnessed, view)}. For the {later}, up to {newest}, a later head"
        " would prove the same."
    )


def _name(link: Link, view: View) -> str:
    return f"change {link.number:,} ({view.time(link.at)} UTC)"

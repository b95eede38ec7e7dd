"""Show the changes that moved or deleted a tag that must not move, as tables for people."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from tagsync.audit.immutable_changes import ImmutableChange
from tagsync.cli.formats import count_text
from tagsync.cli.tables import Block, Column, Line, Row, Table, View, aligned_tables

COMMAND: Final = "tagsync log --immutable"
"""The command that shows all open changes."""


def immutable_blocks(rows: Iterable[Row]) -> Iterator[Block]:
    """Yield the changes of immutable tags, and their totals. The rows are read part by part.

    Args:
        rows: Rows with the fields of `tagsync.audit.rows.ImmutableLogRow`.
    """
    counts: Counter[str] = Counter()
    for table in aligned_tables(COLUMNS, rows):
        counts.update(map(_word, table.rows))
        counts["accepted"] += sum(row["accepted_at"] is not None for row in table.rows)
        yield table
    total = counts["moved"] + counts["deleted"]
    numbers = ", ".join(f"{counts[word]:,} {word}" for word in _TOTALS if counts[word])
    sentence = f"{count_text(total, 'change')} of immutable tags" + (f": {numbers}" * bool(total))
    if total > counts["accepted"]:
        sentence += "; tagsync accept ID --reason TEXT takes one off this list"
    yield Line(sentence, "faint")


def alarm_blocks(newest: Sequence[ImmutableChange], total: int) -> Iterator[Block]:
    """Yield the newest open changes of immutable tags for the top of a page, if there are any.

    Args:
        newest: The newest ones, the newest first.
        total: The number of all that are open.
    """
    if not newest:
        return
    yield Line(f"{count_text(total, 'change')} of tags that must not move:", "stale")
    yield Table(COLUMNS, [as_row(change) for change in newest])
    advice = "if one was intended: tagsync accept ID --reason TEXT"
    more = total - len(newest)
    yield Line(f"and {more:,} more: {COMMAND}; {advice}" if more else advice, "faint")
    yield Line()


def as_row(change: ImmutableChange) -> Row:
    """Return a change as a row for `COLUMNS`."""
    return {
        **msgspec.structs.asdict(change),
        "id": change.change_id,
        "violation": change.kind,
    }


def _id_text(row: Row, view: View) -> str:
    del view
    return str(row["id"])  # Without separators, as tagsync accept expects it.


def _name_text(row: Row, view: View) -> str:
    del view
    return f"{row['repository']}:{row['tag']}"


def _word(row: Row) -> str:
    return "deleted" if row["violation"] == "immutable_deleted" else "moved"


def _digests_text(row: Row, view: View) -> str:
    before, after = view.digest(row["previous_digest"]), view.digest(row["new_digest"])
    return f" {view.arrow} ".join(filter(None, (before, after))) or "not resolved"


def _accepted_text(row: Row, view: View) -> str:
    if row["accepted_at"] is None:
        return ""
    at = view.time(row["accepted_at"])
    return f"accepted {at} by {row['accepted_by']}: {row['reason']}"


_TOTALS: Final = ("moved", "deleted", "accepted")
"""The words of the totals, in their order."""

COLUMNS: Final = (
    Column("id", "name", text=_id_text),
    Column("observed_at", "time"),
    Column("name", "name", text=_name_text, limit=104),
    Column("kind", "name", line=2, text=lambda row, _: _word(row), style=_word),
    Column("change", "words", line=2, text=_digests_text),
    Column("accepted", "words", line=2, text=_accepted_text, style=lambda _: "faint"),
)
"""The columns of a change of an immutable tag."""

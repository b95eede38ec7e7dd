"""The words of the marks in a drawing of lanes: exact times, and windows of uncertainty."""

from collections.abc import Sequence

from tagsync.drawing.merging import Piece
from tagsync.drawing.values import Deletion, Gap, Interval, show_moment


def count(number: int, name: str) -> str:
    """Return a number with the name of what it counts: ``1 move``, ``2 moves``."""
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def of_interval(name: str, interval: Interval) -> list[str]:
    """Return the lines about an interval of the tag with this name."""
    lines = [f"{name}: {interval.digest or 'digest not resolved'}"]
    began = show_moment(interval.valid_from)
    if interval.not_before is None:
        lines.append(f"there in the first listing, {began}")
    else:
        lines.append(f"began after {show_moment(interval.not_before)}, no later than {began}")
    lines.append(f"last seen {show_moment(interval.known_to)}")
    if interval.valid_to is not None:
        lines.append(f"ended no later than {show_moment(interval.valid_to)}")
    return with_words(lines, interval.words)


def of_many(name: str, piece: Piece, deletions: int) -> list[str]:
    """Return the lines about several intervals, between which the tag was deleted so often."""
    first, last = piece.intervals[0], piece.intervals[-1]
    counts = [count(piece.moves, "move")] + [count(deletions, "deletion")] * (deletions > 0)
    intervals = count(len(piece.intervals), "interval")
    return [
        f"{name}: {', '.join(counts)} in {intervals} too short to draw",
        f"from {show_moment(first.valid_from)} to {show_moment(last.possible_to)}",
    ]


def of_deletions(name: str, members: Sequence[Deletion]) -> list[str]:
    """Return the lines about the one or more deletions of a mark."""
    last = show_moment(members[-1].observed_at)
    if len(members) > 1:
        first = show_moment(members[0].observed_at)
        return [f"{name}: {len(members):,} deletions from {first} to {last}"]
    deletion = members[0]
    after = f"after {show_moment(deletion.not_before)}, " if deletion.not_before else ""
    return with_words([f"{name}: deleted {after}no later than {last}"], deletion.words)


def of_gaps(members: Sequence[Gap]) -> list[str]:
    """Return the lines about one or more gaps in coverage, or times before the first listing."""
    first, last = show_moment(members[0].start), show_moment(max(gap.end for gap in members))
    name = "gap in coverage" if members[0].watched else "not watched yet"
    if len(members) > 1 and members[0].watched:
        name = f"{len(members):,} gaps in coverage"
    words = members[0].words if len(members) == 1 else ""
    return with_words([f"{name} from {first} to {last}"], words)


def with_words(lines: Sequence[str], words: str) -> list[str]:
    """Return lines, and the caller's words as another one if there are any."""
    return [*lines, words] if words else [*lines]

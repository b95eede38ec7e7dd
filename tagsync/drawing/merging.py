"""Merge what is too thin to draw, so that the size of a drawing is bounded."""

from collections.abc import Sequence
from itertools import chain, pairwise, starmap
from typing import Final

import msgspec

from tagsync.drawing.room import PIXEL
from tagsync.drawing.values import Interval, Range

MOST: Final = 100
"""Maximum number of pieces of a lane, of marks of deletions in it, and of gaps in coverage."""

_LEAST: Final = 30
"""Number of pieces that each lane may have, however many lanes there are."""

_IN_ALL: Final = 1600
"""Number of pieces of a drawing, so that a page of 40 lanes is made in a tenth of a second."""

_LONGEST: Final = 10.0
"""Maximum width of a piece of several intervals, in percent."""


class Piece(msgspec.Struct, frozen=True):
    """One or more intervals that are drawn as one rectangle.

    Attributes:
        start: Left end in percent: the first interval's ``valid_from``.
        end: Right end in percent: the end of the time in which the last interval may have lasted.
        intervals: In time order.
        moves: How many of the intervals began with a move.
    """

    start: float
    end: float
    intervals: tuple[Interval, ...]
    moves: int


def most_pieces(lanes: int) -> int:
    """Return how many pieces each lane of a drawing may have."""
    return min(max(_IN_ALL // max(lanes, 1), _LEAST), MOST)


def pieces(intervals: Sequence[Interval], span: Range, most: int = MOST) -> list[Piece]:
    """Return the at most ``most`` pieces of a lane that are in the range, in time order.

    Neighbours that are narrower than a pixel of a page of 1,280 pixels are merged. If the pieces
    are still too many, wider ones are merged, too.
    """
    begun = chain([False], starmap(is_move, pairwise(intervals)))
    found = [
        Piece(start, end, (interval,), int(moved and span.start <= interval.valid_from <= span.end))
        for interval, moved in zip(intervals, begun, strict=False)
        if (interval.not_before or interval.valid_from) <= span.end
        and (possible_to := interval.possible_to) >= span.start
        for start, end in [(span.position(interval.valid_from), span.position(possible_to))]
    ]
    least = PIXEL
    while len(merged := _merged(found, least)) > most:
        least *= 2
    return merged


def is_move(one: Interval, other: Interval) -> bool:
    """Return whether a move led from an interval to the one after it."""
    if one.valid_to != other.valid_from or one.digest == other.digest:
        return False
    return one.digest is not None and other.digest is not None


def clusters(spans: Sequence[tuple[float, float]], least: float) -> list[list[int]]:
    """Group spans that are close to each other. There are at most `MOST` groups.

    Args:
        spans: Their ends in percent, in the order of their left ends.
        least: The distance from which on two spans are apart, in percent.

    Returns:
        For each group the indexes of its spans.
    """
    while True:
        groups: list[list[int]] = []
        reached = 0.0
        for index, (start, end) in enumerate(spans):
            if groups and start - reached < least:
                groups[-1].append(index)
            else:
                groups.append([index])
            reached = max(reached, end) if len(groups[-1]) > 1 else end
        if len(groups) <= MOST:
            return groups
        least *= 2


def _merged(found: Sequence[Piece], least: float) -> list[Piece]:
    merged: list[Piece] = []
    run: list[Piece] = []
    for piece in found:
        thin = piece.end - piece.start < least
        joins = run and piece.start - run[-1].end < least and piece.end - run[0].start < _LONGEST
        if run and not (thin and joins):
            merged.append(_joined(run))
            run = []
        if thin:
            run.append(piece)
        else:
            merged.append(piece)
    return [*merged, _joined(run)] if run else merged


def _joined(run: Sequence[Piece]) -> Piece:
    if len(run) == 1:
        return run[0]
    intervals = tuple(interval for piece in run for interval in piece.intervals)
    return Piece(run[0].start, run[-1].end, intervals, sum(piece.moves for piece in run))

"""Merging: the pieces of a lane are few, in order, and none of its intervals is lost."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagsync.drawing.merging import clusters, is_move, most_pieces, pieces
from tagsync.drawing.values import Interval, Range

START = datetime(2026, 11, 1, tzinfo=UTC)
DAY = timedelta(days=1)
SPAN = Range(START, START + 100 * DAY)


def chain(ends: list[float], digests: int = 7) -> list[Interval]:
    """Return intervals between moments in days, with a move at each of them."""
    return [
        Interval(f"d{n % digests}", None, START + a * DAY, START + b * DAY, START + b * DAY)
        for n, (a, b) in enumerate(pairwise(ends))
    ]


@pytest.mark.parametrize("most", [30, 100])
@given(ends=st.lists(st.floats(-10, 110, width=16), min_size=2, max_size=400).map(sorted))
def test_pieces_are_few_and_complete(most: int, ends: list[float]) -> None:
    """Each interval in the range is in one piece, in its order."""
    intervals = chain(ends)
    found = pieces(intervals, SPAN, most)
    assert len(found) <= most
    visible = [one for one in intervals if SPAN.overlaps(one.valid_from, one.possible_to)]
    assert [interval for piece in found for interval in piece.intervals] == visible
    assert all(piece.end - piece.start < 10 for piece in found if len(piece.intervals) > 1)


def test_equal_intervals_are_merged_into_wide_pieces() -> None:
    """Four hundred intervals of three pixels each become pieces with room for their number."""
    found = pieces(chain([n / 4 for n in range(401)]), SPAN, 100)
    assert [len(piece.intervals) for piece in found] == [39] * 10 + [10]
    assert sum(piece.moves for piece in found) == 399


def test_many_lanes_have_fewer_pieces() -> None:
    """A page of 40 lanes has 1,600 pieces, and a lane never less than 30."""
    assert [most_pieces(lanes) for lanes in (0, 1, 16, 40, 1000)] == [100, 100, 100, 40, 30]


def test_only_a_change_of_digest_is_a_move() -> None:
    """No move leads to the same digest, from or to an unresolved one, or over a deletion."""
    one, other, third = chain([0, 10, 20, 30])
    again, *_ = chain([10, 20], digests=1)
    unresolved = Interval(None, None, other.valid_from, other.still_at, other.valid_to)
    assert is_move(one, other)
    assert not is_move(one, third)
    assert not is_move(one, again)
    assert not is_move(one, unresolved)
    assert not is_move(unresolved, third)


def test_only_moves_in_the_range_are_counted() -> None:
    """A move before the range is not counted, although its interval reaches into the range."""
    found = pieces(chain([-20, -10, 10, 20, 30]), SPAN)
    assert [piece.moves for piece in found] == [0, 1, 1]


def test_spans_that_touch_are_one_cluster() -> None:
    """Spans that are closer than the least distance are drawn as one, others are not."""
    assert clusters([(0, 1), (1.5, 2), (5, 6)], 1) == [[0, 1], [2]]
    assert clusters([(0, 50), (10, 11), (50.5, 51)], 1) == [[0, 1, 2]]
    assert clusters([], 1) == []

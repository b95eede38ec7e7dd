"""Pure: sum up coverage: how much of a period was covered, and when nothing was polled."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from tagsync.clock import parse_timestamp

Row = Mapping[str, Any]

Period = tuple[str, str]
"""A start and an end, as `tagsync.clock.timestamp` writes them."""


class Gap(NamedTuple):
    """A gap in coverage. ``seconds`` is its length."""

    start: str
    end: str
    seconds: float


def clip(rows: Iterable[Row], start: str | None, end: str | None) -> list[dict[str, Any]]:
    """Return rows of `Audit.coverage`, without the parts before ``start`` and after ``end``.

    None means that this side is not clipped. The columns but ``from`` and ``to`` are unchanged.
    """
    clipped = (
        {
            **row,
            "from": max(row["from"], start or ""),
            "to": row["to"] if end is None else min(row["to"], end),
        }
        for row in rows
    )
    return [row for row in clipped if row["from"] <= row["to"]]


def summarize(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """Yield a row for each repository: how much of its time complete listings cover.

    The time of a repository is that of its rows. Its longest gap is the longest time without a
    complete listing; the last three columns are None without a gap.

    Args:
        rows: The rows of `Audit.coverage`, with no state left out.
    """
    for repository, group in groupby(rows, key=lambda row: row["repository"]):
        found = list(group)
        start, end = found[0]["from"], max(row["to"] for row in found)
        covered = merged((row["from"], row["to"]) for row in found if row["state"] == "looking")
        looking = sum(seconds(*period) for period in covered)
        total = seconds(start, end)
        longest = max(gaps(covered, start, end), key=lambda gap: gap.seconds, default=None)
        yield {
            "repository": repository,
            "from": start,
            "to": end,
            "seconds": total,
            "looking_seconds": looking,
            # Rounded down, so that a gap never shows as 100 %.
            "percent": math.floor(10_000 * looking / total) / 100 if total else 100.0,
            "longest_gap_seconds": longest.seconds if longest else None,
            "longest_gap_from": longest.start if longest else None,
            "longest_gap_to": longest.end if longest else None,
        }


def unpolled(rows: Iterable[Row]) -> list[Gap]:
    """Return the times in which no repository was polled at all, although one was due.

    A time counts if it is longer than twice the usual time between two polls of the repository that
    is polled most often, as for the runs of `Audit.coverage`.

    Args:
        rows: The rows of `Audit.coverage`, with no state left out.
    """
    found = list(rows)
    if not found:
        return []
    polled = merged((row["from"], row["to"]) for row in found if row["state"] != "hole")
    start, end = min(row["from"] for row in found), max(row["to"] for row in found)
    usual = min(filter(None, map(_usual_spacing, _by_repository(found))), default=0)
    return [gap for gap in gaps(polled, start, end) if gap.seconds > 2 * usual]


def _by_repository(rows: Iterable[Row]) -> Iterator[list[Row]]:
    for _, group in groupby(rows, key=lambda row: row["repository"]):
        yield list(group)


def _usual_spacing(rows: Sequence[Row]) -> float:
    """Return the seconds between two polls in the sparsest run of polls, or 0 if all are alone."""
    runs = [row for row in rows if row["polls"] > 1]
    return max((seconds(row["from"], row["to"]) / (row["polls"] - 1) for row in runs), default=0)


def merged(periods: Iterable[Period]) -> list[Period]:
    """Return periods in time order, those that overlap or touch as one."""
    found: list[Period] = []
    for start, end in sorted(periods):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found


def gaps(periods: Sequence[Period], start: str, end: str) -> list[Gap]:
    """Return the gaps that disjoint periods, in time order, leave between two times."""
    found, reached = [], start
    for first, last in periods:
        if reached < first:
            found.append(Gap(reached, min(first, end), seconds(reached, min(first, end))))
        reached = max(reached, last)
    if reached < end:
        found.append(Gap(reached, end, seconds(reached, end)))
    return found


def shares(periods: Sequence[Period], start: str, end: str, slices: int) -> list[float]:
    """Return which share of each slice of a time some periods cover, from 0 to 1.

    Args:
        periods: Disjoint periods in time order.
        start: The start of the time.
        end: The end of the time.
        slices: The number of slices, of equal length.
    """
    origin = parse_timestamp(start).timestamp()
    length = (parse_timestamp(end).timestamp() - origin) / slices
    found = [0.0] * slices
    if not length:
        return [1.0 if periods else 0.0] * slices
    for first, last in periods:
        begin = max((parse_timestamp(first).timestamp() - origin) / length, 0.0)
        finish = min((parse_timestamp(last).timestamp() - origin) / length, float(slices))
        if begin >= finish:
            continue
        for number in range(int(begin), math.ceil(finish)):
            found[number] += 1.0
        # Take off what the first and the last of these slices have outside of the period.
        found[int(begin)] -= begin - int(begin)
        found[math.ceil(finish) - 1] -= math.ceil(finish) - finish
    return [min(max(share, 0.0), 1.0) for share in found]


def seconds(start: str, end: str) -> float:
    """Return the seconds between two times."""
    return (parse_timestamp(end) - parse_timestamp(start)).total_seconds()

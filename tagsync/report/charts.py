"""Draw charts of the record: from the rows of the audit to drawings, for pages and reports."""

from collections.abc import Callable, Sequence
from datetime import date, datetime
from functools import cache
from typing import Final, Generic, TypeVar

import msgspec

from tagsync.audit.activity import Day
from tagsync.audit.charts import Charts
from tagsync.audit.coverage_strips import CoverageGap, Slice, Strip, Strips
from tagsync.audit.images import ImageDetails, Layer
from tagsync.audit.lanes import Interval, Lane, Lanes
from tagsync.audit.ranges import Range
from tagsync.clock import parse_timestamp, timestamp
from tagsync.drawing import draw_bars, draw_heat_map, draw_lanes, draw_layers, draw_strips
from tagsync.drawing import values as drawn
from tagsync.escaping import short_digest
from tagsync.models import Repository

Rows = TypeVar("Rows")

SLICES: Final = 120
"""Number of slices in a strip of coverage."""

_UNKNOWN: Final = 0.999
"""The unknown share of a slice from which on it is drawn as not watched."""

_LEAST_SHARE: Final = 0.0001
"""The least share of a slice that its tooltip names."""


class Links(msgspec.Struct, frozen=True):
    """The relative URLs of pages to which a chart links. None means no link.

    Attributes:
        repository: From the full name of a repository.
        tag: From the full name of a repository, and a tag.
        image: From the digest of an image.
        change: From the id of a change.
        day: From a day, as ``YYYY-MM-DD``.
        registry: From the name of a registry.
        layer: From the digest of a layer.
    """

    repository: Callable[[str], str] | None = None
    tag: Callable[[str, str], str] | None = None
    image: Callable[[str], str] | None = None
    change: Callable[[int], str] | None = None
    day: Callable[[str], str] | None = None
    registry: Callable[[str], str] | None = None
    layer: Callable[[str], str] | None = None


NO_LINKS: Final = Links()


class Chart(msgspec.Struct, Generic[Rows], frozen=True):
    """A drawing, and what it shows.

    Attributes:
        svg: The drawing, an SVG element as text.
        range: The range that it shows. If it is ``shortened``, say so beside the drawing.
        rows: The rows from which it was drawn, for the exact times in a table.
    """

    svg: str
    range: Range
    rows: Rows


def repository_chart(
    record: Charts,
    repository: Repository,
    period: Range,
    before: int | None = None,
    *,
    links: Links = NO_LINKS,
    prefix: str = "lanes",
) -> Chart[Lanes]:
    """Draw a page of the tags of a repository, a lane for each.

    Args:
        record: The queries for charts.
        repository: A recorded repository.
        period: The range to show.
        before: ``rows.before`` of the page before. None means the first page.
        links: The URLs of tags, images and changes.
        prefix: Begins each id in the drawing. Different for each drawing of a page.

    Raises:
        UnknownRepository: If the repository is not recorded.
        DamagedRecord: If a row is not what tagsync wrote.
    """
    found = record.lanes(repository, period, before)
    title = f"The tags of {repository.full_name}"
    return _lanes(record, repository, found, title, links, prefix, large=False)


def tag_chart(
    record: Charts,
    repository: Repository,
    tag: str,
    period: Range,
    *,
    links: Links = NO_LINKS,
    prefix: str = "lane",
) -> Chart[Lanes]:
    """Draw the lane of one tag, with bars twice as high.

    The arguments and errors are those of `repository_chart`.
    """
    found = record.tag_lane(repository, tag, period)
    title = f"The digests of {repository.full_name}:{tag}"
    return _lanes(record, repository, found, title, links, prefix, large=True)


def lanes_chart(
    record: Charts,
    repository: Repository,
    found: Lanes,
    *,
    links: Links = NO_LINKS,
    prefix: str = "lanes",
) -> Chart[Lanes]:
    """Draw lanes that were queried before; see `repository_chart`."""
    title = f"Tags of {repository.full_name}"
    return _lanes(record, repository, found, title, links, prefix, large=False)


def registries_chart(
    record: Charts,
    period: Range,
    most: int | None = None,
    *,
    links: Links = NO_LINKS,
    prefix: str = "registries",
) -> Chart[Strips]:
    """Draw the coverage of each registry: the mean of its repositories.

    Args:
        record: The queries for charts.
        period: The range to show.
        most: Maximum number of registries, those that are covered least. None means all.
        links: The URLs of registries.
        prefix: Begins each id in the drawing.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    found = record.registry_strips(period, SLICES)
    worst = sorted(found.strips, key=lambda each: 2 if each.covered is None else each.covered)
    shown = worst[:most]
    strips = [strip_of(each, links.registry) for each in found.strips if each in shown]
    title = "Coverage of each registry"
    svg = draw_strips(strips, _drawn_range(found.range), prefix=prefix, title=title)
    return Chart(svg, found.range, found)


def coverage_chart(
    record: Charts,
    repositories: Sequence[Repository],
    period: Range,
    page: int = 1,
    *,
    links: Links = NO_LINKS,
    prefix: str = "coverage",
) -> Chart[Strips]:
    """Draw the coverage of a page of repositories, a row for each.

    Args:
        record: The queries for charts.
        repositories: The recorded repositories of all pages, in order.
        period: The range to show.
        page: The number of the page, from 1.
        links: The URLs of repositories.
        prefix: Begins each id in the drawing.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    found = record.repository_strips(repositories, period, page, SLICES)
    strips = [strip_of(each, links.repository) for each in found.strips]
    title = "Coverage of each repository"
    svg = draw_heat_map(strips, _drawn_range(found.range), prefix=prefix, title=title)
    return Chart(svg, found.range, found)


def days_chart(
    record: Charts,
    now: datetime,
    days: int = 30,
    repositories: Sequence[Repository] | None = None,
    *,
    links: Links = NO_LINKS,
    prefix: str = "days",
) -> Chart[Sequence[Day]]:
    """Draw the number of changes of each of the last days, without the tags of first listings.

    Args:
        record: The queries for charts.
        now: The current time, in the last day.
        days: Number of days, at most 400.
        repositories: The repositories to count. None means all.
        links: The URLs of days.
        prefix: Begins each id in the drawing.

    Raises:
        DamagedRecord: If a row is not what tagsync wrote.
    """
    found = record.changes_by_day(now, days, repositories)
    bars = [_day(each, links) for each in found]
    svg = draw_bars(bars, prefix=prefix, title="Changes per day")
    start = f"{found[0].day}T00:00:00.000Z" if found else timestamp(now)
    return Chart(svg, Range(start, timestamp(now), shortened=len(found) < days), found)


def layers_chart(image: ImageDetails, *, links: Links = NO_LINKS, prefix: str = "layers") -> str:
    """Draw the layers of an image with their sizes, the lowest first."""
    layers = [
        drawn.Layer(each.digest, each.size, _link(links.layer, each.digest), _shared(each))
        for each in image.layers
    ]
    title = f"The layers of {short_digest(image.digest)}"
    return draw_layers(layers, prefix=prefix, title=title)


def default_span(record: Charts, repository: Repository, now: datetime) -> str:
    """Return the range that shows a repository best: 30 days, or all of a younger record.

    Returns:
        A key of `tagsync.audit.ranges.SPANS`.

    Raises:
        UnknownRepository: If the repository is not recorded.
    """
    return younger_span(record.first_listing(repository), record.range("30d", now))


def younger_span(first: str | None, month: Range) -> str:
    """Return ``all`` if the first listing is within the last 30 days, and ``30d`` otherwise.

    Args:
        first: The time of the first listing. None if there is none.
        month: The last 30 days.
    """
    return "30d" if first is None or first < month.start else "all"


def percentage(share: float | None) -> str:
    """Return a share as ``99.94 %``, rounded down, or an empty text for None."""
    if share is None:
        return ""
    # A little more, because 0.9994 may be stored as a number just below it.
    return f"{int(share * 10_000 + 1e-6) / 100:g} %"


def _lanes(
    record: Charts,
    repository: Repository,
    found: Lanes,
    title: str,
    links: Links,
    prefix: str,
    *,
    large: bool,
) -> Chart[Lanes]:
    image = None if links.image is None else cache(links.image)
    lanes = [_lane(repository.full_name, each, links, image, before=large) for each in found.lanes]
    gaps = _gaps(found, record.first_listing(repository))
    span = _drawn_range(found.range)
    svg = draw_lanes(lanes, span, gaps, prefix=prefix, title=title, large=large)
    return Chart(svg, found.range, found)


def _lane(
    repository: str,
    lane: Lane,
    links: Links,
    image: Callable[[str], str] | None,
    *,
    before: bool,
) -> drawn.Lane:
    return drawn.Lane(
        lane.tag,
        tuple(_interval(each, image, before=before) for each in lane.intervals),
        tuple(
            drawn.Deletion(
                _time(each.not_before),
                parse_timestamp(each.observed_at),
                _link(links.change, each.change_id),
                f"it pointed to {short_digest(each.digest)}" if each.digest else "",
            )
            for each in lane.deletions
        ),
        None if links.tag is None else links.tag(repository, lane.tag),
    )


def _interval(
    interval: Interval, image: Callable[[str], str] | None, *, before: bool
) -> drawn.Interval:
    return drawn.Interval(
        interval.digest,
        _time(interval.not_before),
        parse_timestamp(interval.valid_from),
        _time(interval.still_at),
        _time(interval.valid_to),
        _link(image, interval.digest),
        f"before it: {short_digest(interval.previous)}" if before and interval.previous else "",
    )


def _gaps(found: Lanes, first: str | None) -> list[drawn.Gap]:
    """Return the gaps of a repository, after the time in which it was not watched yet.

    Args:
        found: The lanes, with their gaps.
        first: The first complete listing. None without any.
    """
    watched = first or found.range.end
    if found.gaps:
        # Polls that failed before the first complete listing begin a gap.
        watched = min(watched, found.gaps[0].start)
    gaps = [_gap(each) for each in found.gaps]
    if watched <= found.range.start:
        return gaps
    start = parse_timestamp(found.range.start)
    return [drawn.Gap(start, parse_timestamp(watched), watched=False), *gaps]


def _gap(gap: CoverageGap) -> drawn.Gap:
    return drawn.Gap(parse_timestamp(gap.start), parse_timestamp(gap.end), reason(gap))


def reason(gap: CoverageGap) -> str:
    """Return the cause of a gap in a few words."""
    if not gap.polls:
        return "no polls"
    polls = f"{gap.polls:,} poll{'' if gap.polls == 1 else 's'} failed or held"
    return f"{polls}: {gap.detail}" if gap.detail else polls


def strip_of(strip: Strip, link: Callable[[str], str] | None) -> drawn.Strip:
    """Return a strip as the drawing needs it. ``link`` makes its URL from its name."""
    blocks = tuple(_block(each) for each in strip.slices)
    return drawn.Strip(strip.name, blocks, _link(link, strip.name), percentage(strip.covered))


def _block(part: Slice) -> drawn.Block:
    if part.unknown >= _UNKNOWN:
        return drawn.Block(None)
    known = 1 - part.unknown
    shares = (("failed", part.failed), ("held", part.held), ("no polls", part.hole))
    words = [
        f"{words} {percentage(share / known)}"
        for words, share in shares
        if share / known >= _LEAST_SHARE
    ]
    # Rounded, so that an error of a sum does not show as a gap.
    return drawn.Block(round(part.covered / known, 6), ", ".join(words))


def _day(day: Day, links: Links) -> drawn.Day:
    return drawn.Day(
        date.fromisoformat(day.day),
        day.moved,
        day.added,
        day.updated,
        day.deleted,
        _link(links.day, day.day),
    )


def _shared(layer: Layer) -> str:
    others = layer.images - 1
    return f"in {others:,} other image{'' if others == 1 else 's'}" if others > 0 else ""


Value = TypeVar("Value")


def _link(make: Callable[[Value], str] | None, value: Value | None) -> str | None:
    return None if make is None or value is None else make(value)


def _drawn_range(period: Range) -> drawn.Range:
    return drawn.Range(parse_timestamp(period.start), parse_timestamp(period.end))


def _time(text: str | None) -> datetime | None:
    return None if text is None else parse_timestamp(text)

"""The charts of the pages: for each page, a function returns its drawings and their rows."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, Final, NamedTuple, get_args

from tagsync.audit.alarms import Alarm, AlarmKind, Alarms
from tagsync.audit.coverage_strips import PAGE, Strip
from tagsync.audit.images import ImageDetails
from tagsync.audit.lanes import Interval, Lane, Lanes
from tagsync.audit.ranges import Range
from tagsync.clock import parse_timestamp
from tagsync.models import Repository, watch_of
from tagsync.report import charts
from tagsync.report.charts import Chart, Links
from tagsync.web import ranges
from tagsync.web.datasette_database import DATABASE
from tagsync.web.ranges import MakeUrl, Wanted
from tagsync.web.snapshot import Snapshot
from tagsync.web.urls import image_url, layer_url, repository_url, tag_url, url

Row = dict[str, Any]

ALARMS: Final = 5
"""Maximum number of alarms on the front page."""

REGISTRIES: Final = 3
"""Maximum number of registries on the front page."""

INTERVALS: Final = 100
"""Maximum number of intervals in the table below the lanes of a repository."""

FRONT_SPAN: Final = "7d"
"""The range of the coverage on the front page."""


LINKS: Final = Links(
    repository=repository_url,
    tag=tag_url,
    image=image_url,
    change=lambda number: f"/{DATABASE}/changes/{number}",
    day=lambda day: url("/changes", day=day),
    registry=lambda name: url("/coverage", registry=name),
    layer=layer_url,
)
"""The pages to which the charts link."""


def front(record: Snapshot) -> Row:
    """Return the charts of the front page, the newest alarms, and the last verification."""
    queries = record.audit.charts
    week = queries.range(FRONT_SPAN, record.now)
    return {
        "days": charts.days_chart(queries, record.now, links=LINKS),
        "registries": charts.registries_chart(queries, week, REGISTRIES, links=LINKS),
        "most_registries": REGISTRIES,
        "alarms": alarms(record),
        "verification": record.audit.last_verification(),
    }


def alarms(record: Snapshot) -> Row:
    """Return the newest alarms, and how many there are of each kind."""
    repositories = record.audit.repositories([])
    watches = {each: watch_of(each, record.watches) for each in repositories}
    found: Alarms = record.audit.charts.alarms(watches, record.now, newest=ALARMS)
    return {
        "newest": mixed(found.alarms),
        "counts": found.counts,
        "searched_from": None if found.complete else found.searched_from,
    }


def mixed(alarms: Sequence[Alarm]) -> list[Alarm]:
    """Return the newest alarms of each kind in turn, so that no kind hides another one."""
    by_kind = [[each for each in alarms if each.kind == kind] for kind in get_args(AlarmKind)]
    in_turn = [alarm for turn in zip_longest(*by_kind) for alarm in turn if alarm is not None]
    return sorted(in_turn[:ALARMS], key=lambda alarm: get_args(AlarmKind).index(alarm.kind))


def repository(record: Snapshot, name: Repository, asked: Wanted, before: int | None = None) -> Row:
    """Return the lanes of a repository, and the exact times of their intervals.

    Args:
        record: The record.
        name: A recorded repository.
        asked: The range to show.
        before: The cursor of a page of lanes. None means the first page.

    Raises:
        BadRequest: If the range is not valid.
        UnknownRepository: If the repository is not recorded.
    """
    queries = record.audit.charts
    default = charts.default_span(queries, name, record.now)
    period = ranges.period(record, asked, default, name)
    chart = charts.repository_chart(queries, name, period, before, links=LINKS)

    def make_url(**parameters: str | int | None) -> str:
        return url("/repository", name=name.full_name, **parameters) + "#tags-in-time"

    first = queries.first_listing(name)
    lanes = chart.rows
    shown = {"range": asked.span or default, "until": asked.until}
    return {
        **_framed(chart, asked, default, first, make_url),
        "rows": _newest_intervals(lanes),
        "intervals": sum(len(lane.intervals) for lane in lanes.lanes),
        "lanes": lanes,
        "next_lanes": make_url(lanes=lanes.before, **shown) if lanes.before else None,
        "first_lanes": make_url(**shown) if before is not None else None,
    }


def tag(record: Snapshot, name: Repository, tag_name: str, asked: Wanted) -> Row:
    """Return the large lane of a tag.

    The arguments and errors are those of `repository`.
    """
    queries = record.audit.charts
    default = charts.default_span(queries, name, record.now)
    period = ranges.period(record, asked, default, name)
    chart = charts.tag_chart(queries, name, tag_name, period, links=LINKS)

    def make_url(**parameters: str) -> str:
        return url("/tag", repository=name.full_name, tag=tag_name, **parameters)

    return _framed(chart, asked, default, queries.first_listing(name), make_url)


def coverage(record: Snapshot, asked: Wanted, registry: str, search: str, page: int) -> Row:
    """Return the coverage of a page of repositories.

    Args:
        record: The record.
        asked: The range to show.
        registry: The name of the registry of the repositories. Empty for all.
        search: A text that their names contain; case is ignored.
        page: The number of the page, from 1.

    Raises:
        BadRequest: If the range is not valid.
    """
    queries = record.audit.charts
    found = [
        each
        for each in record.audit.repositories([])
        if registry in {"", each.registry} and search.lower() in each.full_name.lower()
    ]
    first = record.query("SELECT min(first_observed_at) AS first FROM repositories", {})[0]["first"]
    default = charts.younger_span(first, queries.range("30d", record.now))
    period = ranges.period(record, asked, default)
    chart = charts.coverage_chart(queries, found, period, page, links=LINKS)

    def make_url(**parameters: str | int | None) -> str:
        return url("/coverage", registry=registry, q=search, **parameters)

    shown = {"range": asked.span, "until": asked.until}
    return {
        **_framed(chart, asked, default, first, make_url),
        "rows": [_missing(each, chart.range) for each in chart.rows.strips],
        "total": chart.rows.total,
        "first_row": (page - 1) * PAGE + 1,
        "previous_page": make_url(**shown, page=page - 1) if page > 1 else None,
        "next_page": make_url(**shown, page=page + 1) if page * PAGE < len(found) else None,
    }


def image(record: Snapshot, digest: str) -> Row | None:
    """Return an image with the drawing of its layers, or None if it is not recorded."""
    found: ImageDetails | None = record.audit.charts.image(digest)
    if found is None:
        return None
    return {"image": found, "layers": charts.layers_chart(found, links=LINKS)}


def _framed(
    chart: Chart[Any], asked: Wanted, default: str, first: str | None, make_url: MakeUrl
) -> Row:
    """Return a drawing with its range and the links to other ranges."""
    return {
        "svg": chart.svg,
        "range": chart.range,
        "choices": ranges.choices(asked, default, make_url),
        **ranges.neighbours(chart.range, asked, default, first, make_url),
    }


class IntervalRow(NamedTuple):
    """An interval of a tag in a table.

    Attributes:
        tag: The tag.
        interval: The interval.
        deletion: The id of the deletion that ended it. None if no deletion did.
    """

    tag: str
    interval: Interval
    deletion: int | None


def _newest_intervals(lanes: Lanes) -> list[IntervalRow]:
    """Return the newest intervals of all lanes, the newest first, each with its tag."""
    found = [
        IntervalRow(lane.tag, interval, _deletion(lane, interval.valid_to))
        for lane in lanes.lanes
        for interval in lane.intervals[-INTERVALS:]
    ]
    found.sort(key=lambda row: row.interval.valid_from, reverse=True)
    return found[:INTERVALS]


def _deletion(lane: Lane, ended: str | None) -> int | None:
    """Return the id of the deletion that ended an interval, or None."""
    if ended is None:
        return None
    return next((each.change_id for each in lane.deletions if each.observed_at == ended), None)


def _missing(strip: Strip, period: Range) -> Row:
    """Return how long a repository was not covered within a range, in seconds, by reason."""
    length = (parse_timestamp(period.end) - parse_timestamp(period.start)).total_seconds()
    each = length / max(len(strip.slices), 1)
    return {
        "name": strip.name,
        "covered": charts.percentage(strip.covered),
        "failed": each * sum(part.failed for part in strip.slices),
        "held": each * sum(part.held for part in strip.slices),
        "hole": each * sum(part.hole for part in strip.slices),
        "unknown": strip.covered is None,
        "polled": strip.polled,
    }

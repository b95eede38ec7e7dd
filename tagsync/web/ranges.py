"""The range of a chart, as the parameters of a page choose it."""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from datasette.utils.asgi import BadRequest

from tagsync.audit.moments import parse_iso, to_recorded
from tagsync.audit.ranges import Range
from tagsync.clock import parse_timestamp
from tagsync.models import Repository
from tagsync.web.snapshot import Snapshot

NAMES: Final[Mapping[str, str]] = {
    "1d": "1 day",
    "7d": "7 days",
    "30d": "30 days",
    "90d": "90 days",
    "1y": "1 year",
    "all": "Everything",
}
"""The label of each key of `tagsync.audit.ranges.SPANS`."""

MakeUrl = Callable[..., str]
"""Makes the URL of the page from the parameters ``range`` and ``until``."""


class Wanted(NamedTuple):
    """The range that a request asks for.

    Attributes:
        span: A key of `NAMES`. Empty if the page chooses.
        until: The end, in ISO 8601. Empty for now.
    """

    span: str
    until: str


class Choice(NamedTuple):
    """A link to the same chart with another range."""

    name: str
    url: str
    current: bool


def wanted(span: str, until: str) -> Wanted:
    """Return the range that the parameters ``range`` and ``until`` ask for.

    Raises:
        BadRequest: If ``range`` is not a key of `NAMES`.
    """
    if span and span not in NAMES:
        raise BadRequest(f"invalid parameter range: give one of {', '.join(NAMES)}")
    return Wanted(span, until)


def period(
    record: Snapshot, asked: Wanted, default: str, repository: Repository | None = None
) -> Range:
    """Return the range to show.

    Args:
        record: The record.
        asked: The range that the request asks for.
        default: The span to show if it asks for none.
        repository: Whose first listing ``all`` begins with. None means any.

    Raises:
        BadRequest: If ``until`` is not a time.
        UnclearQuestion: If ``until`` is in the future.
        UnknownRepository: If the repository is not recorded.
    """
    end = record.now
    if asked.until:
        try:
            moment = parse_iso(asked.until)
            end = parse_timestamp(to_recorded(moment, record.now, asked.until))
        except (ValueError, OverflowError) as error:
            raise BadRequest(
                "invalid parameter until: give a time such as 2026-05-03T12:00:00Z"
            ) from error
    try:
        return record.audit.charts.range(asked.span or default, end, repository)
    except OverflowError as error:
        raise BadRequest("invalid parameter until: the range begins before the year 1") from error


def choices(asked: Wanted, default: str, make_url: MakeUrl) -> list[Choice]:
    """Return a link for each range, with the same end."""
    current = asked.span or default
    return [
        Choice(name, make_url(range=span, until=asked.until), span == current)
        for span, name in NAMES.items()
    ]


def neighbours(
    shown: Range, asked: Wanted, default: str, first: str | None, make_url: MakeUrl
) -> dict[str, str]:
    """Return the URLs of the range before the one that is shown, and of the one that ends now.

    The keys are ``earlier`` and ``newest``. A link that leads nowhere is missing.

    Args:
        shown: The range that the chart shows.
        asked: The range that the request asks for.
        default: The span that is shown if it asks for none.
        first: The time of the first listing. None if there is none.
        make_url: Makes the URLs.
    """
    span = asked.span or default
    links = {}
    if first is not None and first < shown.start:
        links["earlier"] = make_url(range=span, until=shown.start)
    if asked.until:
        links["newest"] = make_url(range=span)
    return links

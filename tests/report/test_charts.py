"""Charts of a real record: places, links, gaps, and what the drawings say in words."""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree as ET

import pytest

from tagsync.audit.coverage_strips import Slice, Strip
from tagsync.audit.images import ImageDetails, Layer, TagUse
from tagsync.audit.queries import Audit
from tagsync.audit.ranges import Range
from tagsync.clock import parse_timestamp
from tagsync.database.store import Store
from tagsync.polling.jobs import Job
from tagsync.report import charts
from tagsync.report.charts import Links, percentage
from tests.support.audit import at, pointing
from tests.support.clock import FakeClock
from tests.support.registries import REPOSITORY, Scripted, polls_at_minutes

SVG = "{http://www.w3.org/2000/svg}"
LINKS = Links(
    repository=lambda name: f"repository?name={quote(name)}",
    tag=lambda name, tag: f"tag?repository={quote(name)}&tag={quote(tag)}",
    image=lambda digest: f"image?digest={quote(digest)}",
    change=lambda number: f"tagsync/changes/{number}",
    day=lambda day: f"changes?day={day}",
    registry=lambda name: f"coverage?registry={quote(name)}",
    layer=lambda digest: f"layer?digest={quote(digest)}",
)
HOSTILE = '"><script>alert(1)</script>\u202e'


@pytest.fixture
def record(job: Job, scripted: Scripted, store: Store, clock: FakeClock) -> Callable[..., None]:
    return polls_at_minutes(job, scripted, store, clock)


@pytest.fixture
def history(record: Callable[..., None]) -> None:
    """A failure, a first listing, a move, a deletion, and a gap with failures."""
    record(0)
    record(10, pointing("a", "1"), pointing("b", "1"))
    record(15, pointing("a", "2"), pointing("b", "1"))
    record(20, pointing("a", "2"))
    record(25)
    record(30)
    record(40, pointing("a", "2"))


def elements(svg: str, name: str) -> list[ET.Element]:
    """Return the elements of a drawing that have a name, in document order."""
    return list(ET.fromstring(svg).iter(f"{SVG}{name}"))  # noqa: S314  our own


def texts(svg: str, element: str = "title") -> list[str]:
    """Return the texts of the elements of a name, in document order."""
    return [each.text or "" for each in elements(svg, element)]


def hrefs(svg: str) -> list[str]:
    return [each.get("href", "") for each in elements(svg, "a")]


@pytest.mark.usefixtures("history")
def test_lanes_lead_to_tags_images_and_changes(database: Path) -> None:
    """Each lane leads to its tag, each interval to its image, and a deletion to its change."""
    with Audit.open(database) as audit:
        chart = charts.repository_chart(
            audit.charts, REPOSITORY, Range(at(-20), at(60)), links=LINKS
        )
    name = quote(REPOSITORY.full_name)
    assert sorted(hrefs(chart.svg)) == sorted(
        [
            f"tag?repository={name}&tag=a",
            f"tag?repository={name}&tag=b",
            *("image?digest=sha256%3A1",) * 2,
            "image?digest=sha256%3A2",
            "tagsync/changes/4",
        ]
    )
    assert [lane.tag for lane in chart.rows.lanes] == ["b", "a"]
    assert chart.range == chart.rows.range == Range(at(-20), at(60))


@pytest.mark.usefixtures("history")
def test_places_are_the_moments_of_the_record(database: Path) -> None:
    """An interval begins and ends where its times are within the range."""
    with Audit.open(database) as audit:
        chart = charts.tag_chart(audit.charts, REPOSITORY, "a", Range(at(0), at(100)), links=LINKS)
    places = [
        float(rectangle.get("x", "").rstrip("%"))
        for each in elements(chart.svg, "a")
        if each.get("href", "").startswith("image")
        for rectangle in each.iter(f"{SVG}rect")
        if rectangle.get("class") is None
    ]
    start, end = map(parse_timestamp, (at(0), at(100)))
    moments = [parse_timestamp(each.valid_from) for each in chart.rows.lanes[0].intervals]
    assert places == pytest.approx(
        [100 * ((at - start) / (end - start)) for at in moments], abs=1e-3
    )
    assert places == pytest.approx([10, 15], abs=0.1)


@pytest.mark.usefixtures("history")
def test_tooltips_say_what_was_there_before(database: Path) -> None:
    """An interval names the digest before it, and a deletion the digest that the tag had."""
    with Audit.open(database) as audit:
        moved = charts.tag_chart(audit.charts, REPOSITORY, "a", Range(at(-20), at(60)))
        whole = charts.repository_chart(audit.charts, REPOSITORY, Range(at(-20), at(60)))
    assert "before it: sha256:1" in "\n".join(texts(moved.svg))
    assert "it pointed to sha256:1" in "\n".join(texts(whole.svg))
    assert hrefs(moved.svg) == hrefs(whole.svg) == []


@pytest.mark.usefixtures("history")
def test_gaps_and_the_time_before_the_first_poll_differ(database: Path) -> None:
    """Before the first poll there is no gap; polls in vain before the first listing are one."""
    with Audit.open(database) as audit:
        chart = charts.tag_chart(audit.charts, REPOSITORY, "a", Range(at(-20), at(45)))
    found = [title for title in texts(chart.svg) if "gap in" in title or "watched" in title]
    assert [title.split(" from ")[0] for title in found] == [
        "not watched yet",
        "gap in coverage",
        "gap in coverage",
    ]
    assert found[0].endswith(f"to {at(0)[:19].replace('T', ' ')} UTC")
    assert "1 poll failed or held: no connection" in found[1]
    assert "2 polls failed or held: no connection" in found[2]


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize("start", [10, 12])
def test_a_range_after_the_first_poll_is_watched_whole(database: Path, start: float) -> None:
    """If a range begins with the first listing or later, all of it is coverage or gaps."""
    with Audit.open(database) as audit:
        chart = charts.tag_chart(audit.charts, REPOSITORY, "a", Range(at(start), at(45)))
    assert "not watched yet" not in chart.svg


def test_a_repository_without_a_listing(record: Callable[..., None], database: Path) -> None:
    """Without a complete listing there are no lanes, and the time since the first poll is a gap."""
    record(0)
    record(5)
    with Audit.open(database) as audit:
        chart = charts.repository_chart(audit.charts, REPOSITORY, Range(at(-20), at(60)))
        assert charts.default_span(audit.charts, REPOSITORY, parse_timestamp(at(60))) == "30d"
    assert "No tags in this range" in texts(chart.svg, "text")
    assert [title.split(" from ")[0] for title in texts(chart.svg)[1:3]] == [
        "not watched yet",
        "gap in coverage",
    ]


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize(("minutes", "expected"), [(60, "all"), (60 * 24 * 31, "30d")])
def test_a_young_record_is_shown_whole(database: Path, minutes: float, expected: str) -> None:
    """In its first 30 days, a repository is shown from its first listing on."""
    with Audit.open(database) as audit:
        now = parse_timestamp(at(minutes))
        assert charts.default_span(audit.charts, REPOSITORY, now) == expected


@pytest.mark.usefixtures("history")
def test_coverage(database: Path) -> None:
    """A strip has a link, a percentage, and the reasons of what is not covered."""
    with Audit.open(database) as audit:
        period = Range(at(-40), at(40))
        whole = charts.coverage_chart(audit.charts, [REPOSITORY], period, links=LINKS)
        registry = charts.registries_chart(audit.charts, period, links=LINKS)
    assert hrefs(whole.svg) == [f"repository?name={quote(REPOSITORY.full_name)}"]
    assert hrefs(registry.svg) == [f"coverage?registry={REPOSITORY.registry}"]
    found = texts(whole.svg)
    assert any("not watched yet" in title for title in found)
    assert any("failed" in title and "gap in coverage" in title for title in found)
    assert "33.33 %" in texts(whole.svg, "text")


@pytest.mark.parametrize(
    ("part", "share", "words"),
    [
        (Slice(0, 0, 0, 0, 1), None, ""),
        (Slice(1 / 3 + 2 / 3 - 1e-12, 0, 0, 1e-12, 0), 1.0, ""),
        (Slice(0.25, 0.125, 0, 0.125, 0.5), 0.5, "failed 25 %, no polls 25 %"),
        (Slice(0.9995, 0, 0.0005, 0, 0), 0.9995, "held 0.05 %"),
    ],
)
def test_a_slice_says_why_it_is_not_covered(part: Slice, share: float | None, words: str) -> None:
    """Unknown time does not count, and the smallest gap that has a reason is one."""
    block = charts.strip_of(Strip("swr", (part,), None), None).blocks[0]
    assert (block.share, block.words) == (share, words)


@pytest.mark.usefixtures("history")
def test_days(database: Path) -> None:
    """Each day leads to its changes. The tags of the first listing are not counted."""
    with Audit.open(database) as audit:
        now = parse_timestamp(at(60))
        chart = charts.days_chart(audit.charts, now, 3, links=LINKS)
    day = at(60)[:10]
    assert len(hrefs(chart.svg)) == 3
    assert hrefs(chart.svg)[-1] == f"changes?day={day}"
    assert f"{day}: 1 moved, 1 deleted" in texts(chart.svg)
    assert chart.range.end == at(60)
    assert not chart.range.shortened


def test_layers() -> None:
    """A layer has its size, a link, and the number of the other images that have it."""
    layers = (Layer(0, f"sha256:{'1' * 64}", 2_000_000, 15), Layer(1, HOSTILE, None, 1))
    no_tags = TagUse(0, 0, 0, (), complete=True)
    image = ImageDetails(
        HOSTILE, None, None, 2, 2_000_000, True, at(0), layers, (), (), no_tags, (), 14
    )
    svg = charts.layers_chart(image, links=LINKS)
    assert hrefs(svg) == [f"layer?digest={quote(each.digest)}" for each in layers]
    assert {"2 MB", "in 14 other images", "size not stated"} <= set(texts(svg, "text"))
    assert "<script" not in svg
    assert "\u202e" not in svg


def test_hostile_names_stay_text(record: Callable[..., None], database: Path) -> None:
    """The name of a tag is neither an element nor an invisible character of the drawing."""
    record(0, pointing(HOSTILE, "1"))
    with Audit.open(database) as audit:
        chart = charts.repository_chart(audit.charts, REPOSITORY, Range(at(0), at(60)), links=LINKS)
    assert "<script" not in chart.svg
    assert "\u202e" not in chart.svg


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (None, ""),
        (1.0, "100 %"),
        (0.99999, "99.99 %"),
        (0.9994, "99.94 %"),
        (0.0003, "0.03 %"),
        (0, "0 %"),
    ],
)
def test_percentages_are_rounded_down(share: float | None, expected: str) -> None:
    """Only what is whole is 100 %."""
    assert percentage(share) == expected

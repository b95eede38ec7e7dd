"""The charts of a report show what its tables say."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tagsync.audit.queries import Audit
from tagsync.clock import timestamp
from tagsync.database.store import Store
from tagsync.models import Repository
from tagsync.report.collect import ask, collect
from tagsync.report.document import Code, Drawing
from tagsync.report.drawings import draw
from tests.support.audit import at
from tests.support.clock import FakeClock
from tests.support.drawings import by_class, parse, titles
from tests.support.registries import poll_any_names
from tests.support.reports import HOSTILE, ReportOn

DrawOn = Callable[..., list[Drawing]]


@pytest.fixture
def draw_on(report_on: ReportOn, record: Path) -> DrawOn:
    """Return a function that draws the charts of a report."""

    def run(*arguments: object) -> list[Drawing]:
        with Audit.open(record) as audit:
            return draw(audit, report_on(*arguments))

    return run


def caption(drawing: Drawing) -> str:
    return "".join(part.text if isinstance(part, Code) else str(part) for part in drawing.caption)


def lanes(drawing: Drawing) -> list[str]:
    names = by_class(parse(drawing.svg), "name")
    return ["".join(name.itertext()) for name in names]


def test_one_tag_has_one_lane_in_the_time_of_the_question(draw_on: DrawOn) -> None:
    """The chart of a tag shows its moves between the two times, and the gap."""
    (drawing,) = draw_on("swr/team/api:latest", 5, 62)
    assert caption(drawing) == (
        f"The digests of swr/team/api:latest, from {at(5)[:19].replace('T', ' ')} to"
        f" {at(62)[:19].replace('T', ' ')} UTC."
    )
    shown = " ".join(titles(parse(drawing.svg)))
    assert "no connection to <b>registry</b>" in shown
    assert "href" not in drawing.svg


def test_a_repository_has_a_lane_for_each_tag(draw_on: DrawOn) -> None:
    """The tags of a repository are drawn on sheets; a deleted one, too, and the name stays text."""
    drawing, *more = draw_on()
    assert more == []
    assert caption(drawing).startswith("The tags of swr/team/api, from ")
    shown = " ".join(lanes(drawing))
    assert all(name in shown for name in ("latest", "old", "new", HOSTILE[0]))


def test_a_glob_has_the_lanes_of_its_tags(draw_on: DrawOn) -> None:
    """Only the tags that match are drawn, the one that moved most first."""
    (drawing,) = draw_on("swr/team/api:[nol]*[wdt]")
    assert [name.strip()[:3] for name in lanes(drawing)] == ["lat", "new", "old"]
    assert draw_on("swr/team/api:nothing*") == []


def test_many_lanes_are_divided(tmp_path: Path) -> None:
    """Lanes are divided into drawings that fit on a sheet, with different ids."""
    path, clock = tmp_path / "tagsync.db", FakeClock()
    with Store.open(path) as store:
        for name in ("a", "b"):
            tags = {f"v{number:02}": "one" for number in range(45)}
            poll_any_names(store, clock, Repository("swr", f"team/{name}"), tags)
    with Audit.open(path) as audit:
        report = collect(audit, ask("*", None, None), datetime(2026, 6, 1, tzinfo=UTC))
        coverage, *drawings = draw(audit, report)
    assert caption(coverage).startswith("Coverage of the repositories, from ")
    assert [len(lanes(drawing)) for drawing in drawings] == [4, 14, 14, 8, 4, 14, 14, 8]
    ids = [element.get("id") for each in drawings for element in parse(each.svg).iter()]
    given = [each for each in ids if each]
    assert len(given) == len(set(given))
    assert "the 40 that moved last" in caption(drawings[0])
    assert timestamp(clock())[:10] in caption(drawings[0])

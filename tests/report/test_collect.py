"""The content of a report is what the commands answer, with its limits."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from tagsync.audit.queries import Audit
from tagsync.audit.rows import TagsAtRow
from tagsync.database.store import Store
from tagsync.errors import UnclearQuestion, UnknownRepository, UnknownTag, Unreachable
from tagsync.models import Listing, Repository, Tag
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tagsync.report.collect import Limits, ask, collect
from tagsync.report.content import Report, ReportAnswer
from tagsync.report.shorten import shorten
from tests.support.audit import at
from tests.support.clock import FakeClock
from tests.support.registries import Scripted, poll_any_names
from tests.support.reports import HOSTILE, ONE, THREE, TWO, ReportOn


def states(rows: Sequence[TagsAtRow]) -> list[tuple[str | None, str]]:
    return [(row.digest, row.certainty) for row in rows]


def answers(report: Report) -> dict[str | None, ReportAnswer]:
    return {answer.tag: answer for answer in report.answers}


def test_it_says_what_a_tag_pointed_to_at_both_times(report_on: ReportOn) -> None:
    """An answer has the possible states at both times, their certainty, and the moves between."""
    (answer,) = report_on("swr/team/api:latest", 5, 62).answers
    assert states(answer.at_from) == [(ONE.digest, "certain")]
    assert states(answer.at_to) == [(TWO.digest, "uncertain"), (ONE.digest, "uncertain")]
    assert (answer.at_to[0].unsure_from, answer.at_to[0].unsure_until) == (at(60), at(65))
    assert (answer.moves, answer.changes) == (2, 2)


def test_gaps_and_times_before_the_record_are_not_certain(report_on: ReportOn) -> None:
    """In a gap the answer is not observed, and before the first listing it is unknown."""
    answer = answers(report_on("swr/team/api:latest", -5, 40))
    assert states(answer["latest"].at_to) == [(TWO.digest, "not observed")]
    assert [(row.tag, row.certainty) for row in answer["latest"].at_from] == [(None, "unknown")]
    (whole,) = report_on("swr/team/api:latest", -10, -5).answers
    assert (whole.tag, states(whole.at_to)) == (None, [(None, "unknown")])


def test_a_tag_that_is_missing_in_a_gap_is_not_certainly_missing(report_on: ReportOn) -> None:
    """In a gap, a tag that was added later is not said to have been missing for certain."""
    (answer,) = report_on("swr/team/api:new", 40, 70).answers
    assert [(row.tag, row.certainty) for row in answer.at_from] == [(None, "not observed")]
    assert states(answer.at_to) == [(TWO.digest, "certain")]


def test_without_times_it_is_about_the_first_and_the_last_listing(report_on: ReportOn) -> None:
    """Without times, an answer compares the first complete listing with the last one."""
    report = report_on()
    found = answers(report)
    assert set(found) == {"latest", "old", "new", *HOSTILE}
    assert states(found["old"].at_from) == [(THREE.digest, "certain")]
    assert (found["old"].at_to, found["new"].at_from) == ([], [])
    assert states(found["new"].at_to) == [(TWO.digest, "certain")]
    (repository,) = report.repositories
    assert (repository.from_, repository.to) == (at(0), at(180))
    assert (repository.last_complete_at, report.question.from_) == (at(180), None)


def test_the_first_listing_is_certain_however_long_it_took(
    database: Path, job: Job, store: Store, scripted: Scripted, clock: FakeClock
) -> None:
    """A tag that moved after the first listing began was certainly as this listing says."""
    for minute, digest in ((5, ONE), (10, TWO)):
        clock.now = FakeClock().now + timedelta(minutes=minute)
        tags = {"latest": Tag("latest", digest.digest)}
        scripted.script.append(
            Listing(tags, {digest.digest: digest}, at(minute - 1), at(minute), None)
        )
        poll(job, store, clock=clock)
    with Audit.open(database) as audit:
        (answer,) = collect(audit, ask("swr/team/api", None, None), clock()).answers
    assert states(answer.at_from) == [(ONE.digest, "certain")]


def test_the_changes_are_those_of_the_log(report_on: ReportOn, record: Path) -> None:
    """The changes between two times are those of `tagsync log`, without the baseline."""
    report = report_on("swr/team/api", 12, 62)
    with Audit.open(record) as audit:
        logged = list(audit.log(["swr/team/api"]))
    assert [change.id for change in report.changes] == [
        row["id"] for row in logged if row["not_before"]
    ]
    counts = report.counts
    assert (counts.moved, counts.added, counts.deleted, counts.updated) == (2, 1, 1, 0)
    assert counts.total == len(report.changes) == 4
    assert report_on("swr/team/api:latest", 20, 50).changes == []


def test_gaps_and_coverage_agree(report_on: ReportOn) -> None:
    """The gap has its ends, its length and its reason; the percentage leaves out just this gap."""
    report = report_on()
    (gap,) = report.gaps
    assert (gap.from_, gap.to, gap.seconds, gap.polls) == (at(25), at(55), 1800.0, 5)
    assert "no connection" in (gap.detail or "")
    (covered,) = report.coverage
    assert (covered.from_, covered.to, covered.percent) == (at(0), at(180), 83.33)
    assert report_on(start=60, end=120).gaps == []


def test_times_around_the_record_are_no_gaps(report_on: ReportOn) -> None:
    """The time before the first poll is not watched; after the last one, a late poll is a gap."""
    (covered,) = report_on(start=-60, end=20).coverage
    assert (covered.from_, covered.percent) == (at(0), 100.0)
    assert report_on(start=100, end=184).coverage[0].percent == 100.0
    late = report_on(start=100, end=260)
    assert [(gap.from_, gap.to) for gap in late.gaps] == [(at(180), at(260))]
    assert late.coverage[0].percent == 50.0


def test_each_repository_has_its_own_times_and_coverage(tmp_path: Path) -> None:
    """Repositories that were listed at other times each have their own times and gaps."""
    path, clock = tmp_path / "tagsync.db", FakeClock()
    with Store.open(path) as store:
        for name, minutes in (("a", (0, 5, 10)), ("b", (20, 25, 60, 65))):
            for minute in minutes:
                clock.now = FakeClock().now + timedelta(minutes=minute)
                poll_any_names(store, clock, Repository("swr", f"team/{name}"), {"v1": "one"})
    with Audit.open(path) as audit:
        report = collect(audit, ask("*", None, None), clock())
        cut = collect(audit, ask("*", None, None), clock(), None, Limits(repositories=1))
    times = [(each.repository, each.from_, each.to) for each in report.repositories]
    assert times == [("swr/team/a", at(0), at(10)), ("swr/team/b", at(20), at(65))]
    assert [(row.repository, row.from_, row.to) for row in report.coverage] == times
    assert [(gap.repository, gap.from_) for gap in report.gaps] == [("swr/team/b", at(25))]
    assert [answer.repository for answer in report.answers] == ["swr/team/a", "swr/team/b"]
    totals = {each.name: (each.shown, each.total) for each in cut.lists}
    assert (totals["repositories"], totals["answers"]) == ((1, 2), (1, None))


def test_the_images_of_the_answer_come_in_its_order(report_on: ReportOn) -> None:
    """Images at the second time come first; each has its layers and the tags that had it."""
    images = report_on("swr/team/api:latest", 5, 20).images
    assert [image.digest for image in images] == [TWO.digest, ONE.digest]
    assert [layer.size for layer in images[0].layers] == [1000, 2000]
    assert (images[0].verified, images[0].tags_now, images[0].tags_ever) == (True, 1, 2)
    assert {tag.tag for tag in images[0].tags} == {"latest", "new"}


def test_each_list_says_how_much_of_it_is_there(report_on: ReportOn) -> None:
    """A cut list has its newest or first rows, the number of all rows, and a command for all."""
    cut = report_on(start=5, limits=Limits(1, 2, 3, 0, 1))
    shown = {each.name: (each.shown, each.total) for each in cut.lists}
    assert shown == {
        "repositories": (1, 1),
        "answers": (2, None),
        "changes": (3, 4),
        "coverage": (1, 1),
        "gaps": (0, 1),
        "images": (1, None),
        "immutable": (0, 0),
    }
    assert [change.id for change in cut.changes] == [change.id for change in report_on().changes][
        1:
    ]
    command = cut.length_of("changes").command
    assert command == f"tagsync log swr/team/api --no-baseline --since {at(5)} --format json"
    assert not any(each.is_cut for each in report_on().lists)


def test_shortening_keeps_the_totals_and_the_newest_changes(report_on: ReportOn) -> None:
    """Half of each list stays, and the totals are still those of all rows."""
    report = report_on()
    shorter = shorten(report)
    assert shorter.changes == report.changes[2:]
    assert shorter.answers == report.answers[: len(report.answers) // 2]
    assert shorter.length_of("changes").total == 4
    assert shorter.length_of("changes").is_cut


@pytest.mark.parametrize(
    ("pattern", "error"),
    [
        ("swr/team/nope", UnknownRepository),
        ("swr/team/api:nope", UnknownTag),
        ("swr/team/api:", UnclearQuestion),
    ],
)
def test_what_is_not_recorded_is_an_error(
    pattern: str, error: type[Exception], report_on: ReportOn
) -> None:
    """An unknown repository, an unknown tag and an invalid pattern are refused."""
    with pytest.raises(error):
        report_on(pattern)


def test_a_glob_selects_tags(report_on: ReportOn) -> None:
    """A pattern with a glob of tags has only the answers and the changes of these."""
    report = report_on("swr/*:[no]*w")
    assert [answer.tag for answer in report.answers] == ["new"]
    assert [change.tag for change in report.changes] == ["new"]


def test_a_repository_that_was_never_listed_has_no_answer(
    job: Job, store: Store, scripted: Scripted, clock: FakeClock, database: Path
) -> None:
    """If every poll failed, there are no times, and nothing is said of any tag."""
    scripted.script.append(Unreachable("no connection"))
    poll(job, store, clock=clock)
    with Audit.open(database) as audit:
        report = collect(audit, ask("swr/team/api", None, None), clock())
    (repository,) = report.repositories
    assert (repository.from_, repository.to, report.answers) == (None, None, [])

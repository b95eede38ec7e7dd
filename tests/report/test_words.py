"""The sentences of a report."""

import pytest

from tagsync.report.document import Code, Text
from tagsync.report.words import duration, sentence, size, states, window
from tests.support.audit import at
from tests.support.reports import ONE, TWO, ReportOn

MAY = "T, the tag latest may have pointed to"
MOVE = "between 2026-05-03 13:00:00 and 2026-05-03 13:05:00"
BETWEEN = "between 2026-05-03 12:25:00 and 2026-05-03 12:55:00"
GAP = f"no complete listing shows the tag {BETWEEN}"


def plain(words: Text) -> str:
    names = {ONE.digest: "ONE", TWO.digest: "TWO"}
    return "".join(
        names.get(word.text, word.text) if isinstance(word, Code) else str(word) for word in words
    )


@pytest.mark.parametrize(
    ("tag", "minute", "expected", "cell"),
    [
        ("latest", 5, "T, the tag latest pointed to ONE. This is certain.", "ONE (certain)"),
        ("new", 5, "T, the tag new did not exist. This is certain.", "did not exist (certain)"),
        (
            "latest",
            62,
            f"{MAY} TWO or ONE. This is uncertain: it changed {MOVE}.",
            f"TWO or ONE (uncertain {MOVE})",
        ),
        (
            "latest",
            40,
            f"{MAY} TWO. This is not observed: {GAP}.",
            f"TWO (not observed {BETWEEN})",
        ),
        (
            "new",
            40,
            f"T, the answer is not observed: {GAP}.".replace("shows the tag", "covers this time"),
            f"not observed: {GAP}".replace("shows the tag", "covers this time"),
        ),
        (
            "latest",
            -1,
            "T, the answer is unknown: the first complete listing was at 2026-05-03 12:00:00.",
            "unknown: the first complete listing was at 2026-05-03 12:00:00",
        ),
    ],
)
def test_an_answer_says_how_certain_it_is_and_why(
    tag: str, minute: int, expected: str, cell: str, report_on: ReportOn
) -> None:
    """Each certainty has its own sentence, with the interval in which nothing more is known."""
    (answer,) = report_on(f"swr/team/api:{tag}", minute, 70).answers
    assert plain(sentence(tag, "T", answer.at_from)) == expected
    assert plain(states(answer.at_from)) == cell


def test_a_window_has_its_date_once_and_shows_both_ends() -> None:
    """A short window is shown to the millisecond, and a date is not repeated."""
    day = "2026-05-03"
    assert window(at(0), at(5)) == f"after {day} 12:00:00, no later than 12:05:00"
    assert window(f"{day}T12:00:00.100Z", f"{day}T12:00:00.300Z") == (
        f"after {day} 12:00:00.100, no later than 12:00:00.300"
    )
    assert window(at(0), at(24 * 60)).endswith("no later than 2026-05-04 12:00:00")
    assert window(None, at(0)) == f"before or at the first listing, {day} 12:00:00"


def test_durations_and_sizes() -> None:
    """A duration has its two longest units; a size is exact and has a unit."""
    assert [duration(each) for each in (0.4, 59, 3600, 90_061)] == [
        "< 1 s",
        "59 s",
        "1 h",
        "1 d 1 h",
    ]
    assert [size(each) for each in (None, 999, 1_500_000)] == [
        *("unknown", "999 B", "1,500,000 B (1.5 MB)"),
    ]

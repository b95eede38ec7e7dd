"""The tags of a page: all of them in order, and a bounded number of changes."""

from pathlib import Path

import pytest

from tagsync.audit.tag_pages import TagPage, changed_between, tags_after
from tagsync.database.connection import reading
from tests.support.audit import PollAt, at, pointing
from tests.support.registries import REPOSITORY


@pytest.fixture
def history(poll_at: PollAt) -> None:
    """Three tags: one moves at each poll, one is added later, one stays."""
    for minute in (0, 5, 10, 15):
        tags = [pointing("busy", str(minute)), pointing("stays", "a")]
        poll_at(minute, *tags, *([pointing("late", "b")] if minute else []))


@pytest.mark.usefixtures("history")
def test_a_page_of_tags(database: Path) -> None:
    """A page has at most so many changes, but at least one tag."""
    with reading(database) as db:
        assert tags_after(db, REPOSITORY, "") == TagPage(["busy", "late", "stays"], 6, None)
        assert tags_after(db, REPOSITORY, "", 5) == TagPage(["busy", "late"], 5, "late")
        assert tags_after(db, REPOSITORY, "", 1) == TagPage(["busy"], 4, "busy")
        assert tags_after(db, REPOSITORY, "late") == TagPage(["stays"], 1, None)
        assert tags_after(db, REPOSITORY, "stays") == TagPage([], 0, None)


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize(
    ("start", "end", "tags"),
    [
        (-1, None, ["busy", "late", "stays"]),
        (0, None, ["busy", "late"]),
        (5, None, ["busy"]),
        (5, 5, []),
        (1, 2, ["busy", "late"]),
        (5, 7, ["busy"]),
        (15, None, []),
        (20, 30, []),
    ],
)
def test_tags_that_may_have_changed(
    database: Path, start: int, end: int | None, tags: list[str]
) -> None:
    """Only tags with a change that may lie between the moments are read."""
    until = None if end is None else at(end)
    with reading(database) as db:
        assert changed_between(db, REPOSITORY, at(start), until, "").tags == tags
        later = changed_between(db, REPOSITORY, at(start), until, "busy").tags
    assert later == [tag for tag in tags if tag != "busy"]

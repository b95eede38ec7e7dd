"""The result of a pass for people: what is shown, what is summed up, and the totals."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tagsync.cli.expected_changes import ExpectedChanges
from tagsync.cli.sync_result import (
    Tally,
    dry_run_blocks,
    expected_blocks,
    result_blocks,
    to_row,
    totals,
)
from tagsync.cli.tables import View, render
from tagsync.database.outcomes import Reason
from tagsync.models import Change, Repository
from tagsync.polling.jobs import Poll, PollOutcome

WIDTHS = (80, 100, 120, 200)
OLD, NEW = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"


def view(width: int = 120) -> View:
    return View(width, datetime(2026, 5, 3, 12, tzinfo=UTC))


def poll(name: str, outcome: PollOutcome = "ok", registry: str = "swr", **values: Any) -> Poll:
    return Poll(Repository(registry, name), outcome, **values)


def failed(name: str, reason: Reason = "unreachable", registry: str = "swr") -> Poll:
    detail = f"https://{registry}/{name} could not be reached: check the network"
    return poll(name, "failed", registry, reasons=(reason,), detail=detail)


def shown(*polls: Poll, show_all: bool = False, dry_run: bool = False, width: int = 120) -> str:
    blocks = result_blocks(polls, show_all=show_all, dry_run=dry_run)
    return "\n".join(render(blocks, view(width)))


def lines_with(text: str, part: str) -> list[str]:
    return [line for line in text.splitlines() if part in line]


# --- rows ----------------------------------------------------------------------------------------


def test_only_what_changed_was_held_or_failed_is_shown() -> None:
    """Unchanged and dropped repositories have no row, unless all are shown."""
    polls = [
        poll("team/idle", tags=3),
        poll("team/late", "dropped", tags=3, detail="another listing was recorded"),
        poll("team/new", tags=3, added=1),
        poll("team/held", "held", tags=0, detail="would delete 3 of 3 tags"),
        failed("team/bad"),
    ]
    text = shown(*polls)
    assert "team/idle" not in text
    assert "team/late" not in text
    for part in ("swr/team/new", "held  swr/team/held", "would delete 3 of 3 tags"):
        assert part in text
    assert "failed  swr/team/bad" in text
    everything = shown(*polls, show_all=True)
    assert all(each.repository.full_name in everything for each in polls)
    assert "another listing was recorded" in everything


def test_the_worst_is_last() -> None:
    """Failures are next to the totals, because a terminal shows the last lines."""
    text = shown(
        failed("a/bad"), poll("b/held", "held", detail="held"), poll("c/new", tags=1, added=1)
    )
    assert text.index("c/new") < text.index("b/held") < text.index("a/bad")


@pytest.mark.parametrize("reason", ["unreachable", "login_refused", "timeout", "malformed"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_registry_that_fails_is_one_row(reason: Reason, width: int) -> None:
    """If all repositories of a registry fail for one reason, one row says so."""
    polls = [failed(f"team/service-{number}", reason) for number in range(300)]
    text = shown(*polls, failed("team/*", reason), width=width)
    assert lines_with(text, "failed") == ["failed  swr (300 repositories, 1 pattern)"]
    assert "for example: https://swr/team/service-0 could not be reached" in " ".join(text.split())
    assert len(text.splitlines()) <= 4


def test_failures_of_two_registries_are_two_rows() -> None:
    """Registries are not mixed, nor are reasons."""
    polls = [failed(f"a/{n}") for n in range(12)] + [
        failed(f"b/{n}", registry="hub") for n in range(12)
    ]
    polls.append(failed("c/one", "not_found"))
    assert lines_with(shown(*polls), "failed") == [
        "failed  swr (12 of 13 repositories)",
        "failed  hub (12 repositories)",
        "failed  swr/c/one",
    ]


@pytest.mark.parametrize(("reason", "rows"), [("unreachable", 1), ("not_found", 20)])
def test_failures_of_single_repositories_keep_their_rows(reason: Reason, rows: int) -> None:
    """Only reasons that concern a registry are summed up while others of it succeed."""
    polls = [poll(f"good/{n}", tags=1) for n in range(20)]
    polls += [failed(f"bad/{n}", reason) for n in range(20)]
    assert len(lines_with(shown(*polls), "failed")) == rows


def test_few_failures_are_named() -> None:
    """Below ten failures, each repository is named, as some of the registry work."""
    polls = [poll("good/one", tags=1), *(failed(f"bad/{n}") for n in range(9))]
    assert len(lines_with(shown(*polls), "failed")) == 9


def test_all_sums_up_nothing() -> None:
    """With ``--all``, each failed repository has its row and its detail."""
    polls = [failed(f"bad/{n:02}") for n in range(20)]
    text = shown(*polls, show_all=True, width=200)
    assert all(f"https://swr/bad/{n:02} could not be reached" in text for n in range(20))


def test_patterns_of_an_unreachable_registry_are_one_row() -> None:
    """Before its repositories are known, a registry that fails is one row as well."""
    text = shown(failed("a/*"), failed("b/*"))
    assert lines_with(text, "failed") == ["failed  swr (2 patterns)"]


def test_watches_that_match_nothing_keep_their_rows() -> None:
    """A failed poll without a reason is never summed up."""
    polls = [poll(f"{name}/*", "failed", detail="the watch matches nothing") for name in "ab"]
    assert len(lines_with(shown(*polls), "failed")) == 2


def test_many_first_listings_are_one_line() -> None:
    """The first pass over many repositories is summed up; changes beside it are not."""
    polls = [poll(f"a/{n}", tags=200, added=200, first=True) for n in range(500)]
    text = shown(*polls, poll("b/one", tags=3, added=1))
    assert "first listing of 500 repositories, with 100,000 tags (--all shows each)" in text
    assert "swr/b/one" in text
    assert "a/7" not in text
    assert "swr/a/7 " in shown(*polls, show_all=True)
    assert len(lines_with(shown(*polls[:3]), "swr/a/")) == 3


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    """Names, counts and details fit every width, and no name is cut."""
    name = f"{'team-with-a-long-name/' * 3}service"
    polls = [
        poll(name, tags=12345, added=1, updated=2, deleted=3),
        poll(f"{name}-b", "held", detail="word " * 60),
        failed(f"{name}-c", "not_found"),
    ]
    for show_all in (False, True):
        text = shown(*polls, show_all=show_all, width=width)
        assert max(map(len, text.splitlines())) <= width
        joined = text.replace("\n", "")
        assert all(each.repository.full_name in joined for each in polls)


# --- totals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("polls", "sentence"),
    [
        ([], "0 repositories in 1.2 s: no change"),
        ([poll("a/b", tags=1)] * 505, "505 repositories in 1.2 s: no change"),
        (
            [poll("a/b", tags=9, added=20, updated=17, deleted=3, moved=15), failed("a/c")],
            "2 repositories in 1.2 s: 1 changed (+20 ~17 -3 tags, 15 moved), 1 failed",
        ),
        (
            [poll("a/b", "held"), poll("a/c", "dropped"), poll("a/d", tags=1, deleted=2)],
            "3 repositories in 1.2 s: 1 changed (-2 tags), 1 dropped, 1 held",
        ),
        ([poll("a/b", tags=1), failed("c/*")], "1 repository in 1.2 s: 1 pattern failed"),
    ],
)
def test_totals_are_one_line(polls: list[Poll], sentence: str) -> None:
    """The totals name each outcome that occurred, and how long the pass took."""
    assert totals(polls, 1.23, dry_run=False) == sentence


def test_totals_of_a_dry_run_are_marked() -> None:
    """The totals of a dry run say so, and that the changes are not recorded."""
    sentence = totals([poll("a/b", tags=1, added=1)], 75, dry_run=True)
    assert sentence == "dry run: 1 repository in 1 min 15 s: 1 would change (+1 tags)"


def test_progress_counts_polls() -> None:
    """The progress has the polls that ended, the failures and the moves."""
    tally = Tally(500)
    assert str(tally) == "0/500  0 failed  0 moved"
    for each in (failed("a/b"), poll("a/c", updated=3, moved=2), poll("a/d", "held")):
        tally.add(each)
    assert str(tally) == "3/500  1 failed  1 held  2 moved"


# --- a dry run -----------------------------------------------------------------------------------

CHANGES = (
    Change("gone", "deleted", OLD, None, {"digest": (OLD, None)}),
    Change("latest", "updated", OLD, NEW, {"digest": (OLD, NEW)}),
    Change("new", "added", None, NEW, {"digest": (None, NEW)}),
    Change("resolved", "updated", None, NEW, {"digest": (None, NEW)}),
    Change("signed", "updated", NEW, NEW, {"is_trusted": (False, True)}),
)


def expected(changed: Poll, *, show_all: bool = False, width: int = 120) -> list[str]:
    with ExpectedChanges() as changes:
        changes.add(changed)
        rows = changes.of(changed.repository)
    return list(render(expected_blocks(changed, rows, show_all=show_all), view(width)))


@pytest.mark.parametrize("width", WIDTHS)
def test_each_expected_change_is_a_line(width: int) -> None:
    """A dry run says of each tag what would happen to it, with the digests."""
    name, *lines = expected(poll("team/api", changes=CHANGES), width=width)
    assert name == "swr/team/api"
    assert [line.split() for line in lines] == [
        ["would", "delete", "gone", "111111111111"],
        ["would", "move", "latest", "111111111111", "→", "222222222222"],
        ["would", "add", "new", "222222222222"],
        ["would", "update", "resolved", "no", "digest", "→", "222222222222"],
        ["would", "update", "signed", "is_trusted"],
    ]


def test_a_long_first_listing_is_one_line() -> None:
    """The first listing of a repository is summed up in a dry run, unless all is shown."""
    changes = [Change(f"v{number}", "added", None, NEW, {}) for number in range(200)]
    first = poll("team/api", changes=changes, first=True)
    (line,) = expected(first)
    assert line == "swr/team/api  would add 200 tags (first listing, --all lists each)"
    assert len(expected(first, show_all=True)) == 201
    assert len(expected(poll("team/api", changes=changes))) == 201


def test_a_dry_run_has_no_row_of_changes() -> None:
    """In a dry run, the lines of the changes replace the rows of changed repositories."""
    text = shown(poll("team/api", tags=1, added=1), failed("team/web"), dry_run=True)
    assert "team/api" not in text
    assert "failed  swr/team/web" in text


def test_expected_changes_of_many_repositories_are_kept_apart() -> None:
    """Each repository gets its own changes back, also if they need a file."""
    polls = [
        poll(f"team/{number}", changes=[Change(f"t{number}", "added", None, "x" * 9000, {})] * 9)
        for number in range(30)
    ]
    with ExpectedChanges() as changes:
        for each in polls:
            changes.add(each)
        for number, each in enumerate(polls):
            rows = changes.of(each.repository)
            assert [row["tag"] for row in rows] == [f"t{number}"] * 9
        assert changes.of(Repository("swr", "team/none")) == []


def test_row_has_the_columns_of_a_poll() -> None:
    """A row has the full name and the counts."""
    row = to_row(poll("team/api", tags=3, added=1))
    assert (row["repository"], row["tags"], row["added"]) == ("swr/team/api", 3, 1)


def test_many_long_first_listings_are_one_line() -> None:
    """A dry run sums up more than ten long first listings, and lists every other change."""
    first = [poll(f"team/{n}", first=True, added=200) for n in range(300)]
    changed = poll("team/api", added=1, changes=CHANGES)
    polls = [*first, poll("team/short", first=True, added=1), changed]
    with ExpectedChanges() as changes:
        changes.add(changed)

        def lines(polls: list[Poll], *, show_all: bool = False) -> list[str]:
            blocks = dry_run_blocks(polls, changes.of, show_all=show_all)
            return list(render(blocks, view()))

        total, name, *others = lines(polls)
        assert total.startswith("would record the first listing of 300 repositories, with 60,000")
        assert (name, len(others)) == ("swr/team/api", len(CHANGES))
        assert not any("first listing of" in line for line in lines(polls, show_all=True))
        assert not any("first listing of" in line for line in lines(polls[290:]))


@pytest.mark.parametrize("width", WIDTHS)
def test_counts_are_shown_at_every_width(width: int) -> None:
    """Beside a name of 60 characters, a narrow table has the counts on a second line."""
    name = "team/" + "r" * 51
    text = shown(poll(name, tags=7, added=1, updated=23, deleted=4), width=width)
    lines = text.splitlines()
    assert len(lines) == (4 if width == 80 else 2)
    title, row = lines[: len(lines) // 2], lines[len(lines) // 2 :]
    assert " ".join(title).split() == ["repository", "tags", "added", "updated", "deleted"]
    assert " ".join(row).split() == [f"swr/{name}", "7", "1", "23", "4"]


def test_a_long_tag_keeps_its_digests_together() -> None:
    """In a dry run, digests that do not fit beside a long tag follow it on one line."""
    change = Change("release-2026.11.26-rc.1-arm64-alpine-3.2", "updated", OLD, NEW, {})
    lines = expected(poll("team/api", changes=[change]), width=80)
    assert lines[-1].split() == ["111111111111", "→", "222222222222"]

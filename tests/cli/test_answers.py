"""The tables of the commands over generated rows: the rules hold at every width."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagsync.cli.coverage import coverage_blocks
from tagsync.cli.diff import diff_blocks
from tagsync.cli.find import FIND_COLUMNS, find_blocks, summary_blocks
from tagsync.cli.lines import use_color
from tagsync.cli.log import log_blocks
from tagsync.cli.status import status_blocks, verification_block
from tagsync.cli.tables import Block, Row, View, render
from tagsync.cli.tags import moment_blocks, tag_blocks
from tagsync.clock import timestamp
from tagsync.database.verifications import Result, Verification
from tests.support.terminals import LETTERS, WIDTHS, measured, plain

NOW = datetime(2026, 5, 3, 12, 0, tzinfo=UTC)
OLD, NEW = (f"sha256:{letter * 64}" for letter in "ab")


def names(longest: int) -> st.SearchStrategy[str]:
    """Names of up to this many cells, without the marks that combine."""
    letters = st.sampled_from([letter for letter in LETTERS if measured(letter)])
    return st.text(letters, min_size=1, max_size=longest).filter(lambda t: measured(t) <= longest)


TIMES = st.integers(0, 10**6).map(lambda s: timestamp(NOW - timedelta(seconds=s)))


def change(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row as a change, with the digests that its kind has."""
    return {
        **row,
        "old_digest": None if row["kind"] == "added" else OLD,
        "new_digest": None if row["kind"] == "deleted" else NEW,
        "fields": {"digest": (None, NEW)},
    }


def rows_of(repository: int, tag: int) -> st.SearchStrategy[dict[str, Any]]:
    """Rows with the columns of every command, and names of at most these many cells."""
    return st.fixed_dictionaries(
        {
            "repository": names(repository).map(lambda name: f"r/{name}"[:repository]),
            "tag": names(tag),
            "kind": st.sampled_from(["added", "updated", "deleted"]),
            "observed_at": st.just(timestamp(NOW)),
            "not_before": TIMES,
            "certainty": st.sampled_from(["certain", "uncertain", "not observed"]),
            "unsure_from": TIMES,
            "unsure_until": st.just(timestamp(NOW)),
            "present": st.booleans(),
            "digest": st.sampled_from([OLD, NEW, None]),
            "image_id": st.just("c" * 64),
            "size": st.integers(0, 10**12),
            "updated": TIMES,
            "changed_at": TIMES,
            "query": st.sampled_from([OLD, NEW]),
            "role": st.sampled_from(["manifest", "layer"]),
            "platform": st.just("linux/amd64"),
            "valid_from": TIMES,
            "valid_to": st.just(None) | TIMES,
            "last_complete_at": st.just(None) | TIMES,
            "tags": st.integers(0, 10**6),
            "outcome": st.sampled_from(["ok", "failed", "held", None]),
            "failures": st.integers(0, 10),
            "last_error": st.just(None) | st.just("the registry refuses the login " * 9),
            "stale": st.sampled_from([True, False, None]),
            "from": TIMES,
            "to": st.just(timestamp(NOW)),
            "seconds": st.floats(0, 10**6),
            "state": st.sampled_from(["looking", "failed", "held", "hole"]),
            "polls": st.integers(0, 10**4),
            "detail": st.just(None) | st.just("the registry refuses the login " * 9),
        }
    ).map(change)


Document = Callable[[Sequence[Row], View], Iterator[Block]]

DOCUMENTS: Final[dict[str, Document]] = {
    "log": lambda rows, view: log_blocks(rows, view, (1000, 10)),
    "tags": tag_blocks,
    "tags --at": lambda rows, view: moment_blocks(rows, view, timestamp(NOW)),
    "diff": lambda rows, view: diff_blocks(rows, view, timestamp(NOW), None),
    "find": lambda rows, view: find_blocks(rows, view, rows),
    "status": lambda rows, _: status_blocks(rows, show_all=True),
    "coverage": lambda rows, view: coverage_blocks(rows, rows, view),
}

NAMED = {
    "log": ("repository", "tag"),
    "tags": ("repository", "tag"),
    "tags --at": ("repository", "tag"),
    "diff": ("repository", "tag"),
    "find": ("repository", "tag"),
    "status": ("repository",),
    "coverage": ("repository",),
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("command", DOCUMENTS)
@given(st.lists(rows_of(255, 128), max_size=5))
def test_each_command_shows_whole_names(
    command: str, width: int, rows: list[dict[str, Any]]
) -> None:
    """No name is cut, and no line is wider than the terminal."""
    rows.sort(key=lambda row: (row["repository"], row["tag"]))
    view = View(width, NOW, color=True)
    lines = [plain(line) for line in render(DOCUMENTS[command](rows, view), view)]
    assert lines
    assert max(map(measured, lines)) <= width
    text = "".join(line.strip() for line in lines)
    for row in rows:
        assert all(row[name] in text for name in NAMED[command])


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("command", ["log", "tags", "find", "status", "diff"])
@given(rows_of(60, 40))
def test_a_row_of_each_command_takes_two_lines(
    command: str, width: int, row: dict[str, Any]
) -> None:
    """A repository of 60 and a tag of 40 cells take two lines of the table."""
    row["certainty"] = "certain"
    view = View(width, NOW)
    few, many = (
        len(list(render(DOCUMENTS[command]([row] * number, view), view))) for number in (10, 20)
    )
    assert many - few <= 20


def test_worst_repositories_come_first() -> None:
    """Status shows stale repositories, then failed and held ones, and counts the others."""
    row = {"last_complete_at": timestamp(NOW), "tags": 1, "failures": 0, "last_error": None}
    states = {
        "a/ok": ("ok", False),
        "a/held": ("held", False),
        "a/failed": ("failed", False),
        "a/stale": ("ok", True),
        "b/gone": ("failed", None),
    }
    rows = [
        {**row, "repository": name, "outcome": outcome, "stale": stale}
        for name, (outcome, stale) in states.items()
    ]
    lines = list(render(status_blocks(rows, show_all=False), View(80, NOW)))
    shown = [line.split()[:2] for line in lines if "a/" in line]
    assert shown == [["stale", "a/stale"], ["failed", "a/failed"], ["held", "a/held"]]
    assert " ".join(lines[-2:]).endswith(
        "5 repositories: 1 stale, 1 failed, 1 held, 1 ok, 1 not watched; --all shows the others"
    )
    everything = list(render(status_blocks(rows, show_all=True), View(80, NOW)))
    assert any(line.startswith("not watched  b/gone") for line in everything)


@pytest.mark.parametrize("subject", ["https://swr.example.com/v2/a/b/tags", "a/b"])
def test_status_shows_the_reason_and_not_the_address(subject: str) -> None:
    """An error that begins with an address or the repository's name is shown without it."""
    row: dict[str, Any] = {
        "repository": "r/a/b",
        "last_complete_at": timestamp(NOW),
        "tags": 1,
        "outcome": "failed",
        "failures": 1,
        "last_error": f"{subject} could not be reached",
        "stale": False,
    }

    def text(row: Row, *, full: bool) -> str:
        return "\n".join(render(status_blocks([row], show_all=False), View(80, NOW, full=full)))

    assert subject in text(row, full=True)
    assert "1 failed poll  could not be reached" in text(row, full=False)
    other = {**row, "last_error": "the registry refuses the login"}
    assert other["last_error"] in text(other, full=False)


def test_log_is_one_line_per_change() -> None:
    """A change is one line: its time, name, kind, digests, and how exact its time is."""
    row = {
        "observed_at": "2026-11-26T12:38:00.000Z",
        "not_before": "2026-11-26T12:33:00.000Z",
        "repository": "team-a/api",
        "tag": "latest",
        "kind": "updated",
        "old_digest": f"sha256:87faf5fb8ab6{'0' * 52}",
        "new_digest": f"sha256:e6795db7a782{'0' * 52}",
        "fields": {},
    }
    line, *_ = render(log_blocks([row], View(100, NOW), (0, 0)), View(100, NOW))
    assert line == (
        "2026-11-26 12:38  team-a/api:latest  moved  87faf5fb8ab6 → e6795db7a782  (within 5 min)"
    )


def test_uncertain_tags_are_one_block() -> None:
    """An uncertain tag has one line with its possibilities, below the window in words."""
    window = {"unsure_from": "2026-05-03T11:00:00.000Z", "unsure_until": "2026-05-03T11:05:00.000Z"}
    row = {"repository": "swr/api", "certainty": "uncertain", "present": True, **window}
    rows = [
        {**row, "tag": "latest", "digest": OLD},
        {**row, "tag": "latest", "digest": NEW},
        {**row, "tag": "v1", "digest": None, "present": False},
        {**row, "tag": "v1", "digest": NEW},
    ]
    view = View(120, NOW)
    assert list(render(moment_blocks(rows, view, timestamp(NOW)), view)) == [
        "swr/api: uncertain; each of these tags changed between 2026-05-03 11:00 and 11:05 (5 min)",
        "latest  aaaaaaaaaaaa or bbbbbbbbbbbb",
        "v1      absent or bbbbbbbbbbbb",
        "2 tags in 1 repository at 2026-05-03 12:00, 2 uncertain",
    ]


def test_counts_of_digests() -> None:
    """The summary of find has a line for each digest, and counts the unknown ones."""
    rows = [
        {"query": OLD, "role": "layer", "tags_now": 2, "tags_ever": 1200, "repositories": 3},
        {"query": NEW, "role": "unknown", "tags_now": 0, "tags_ever": 0, "repositories": 0},
    ]
    view = View(200, NOW)
    _, first, _, total = render(summary_blocks(rows, view), view)
    assert first.split() == ["aaaaaaaaaaaa", "layer", "2", "1,200", "3"]
    assert total.startswith("2 digests: 1 with tags now; 1 unknown")


@pytest.mark.parametrize(
    ("choice", "environment", "terminal", "expected"),
    [
        ("auto", {"TERM": "xterm"}, True, True),
        ("auto", {"TERM": "dumb"}, True, False),
        ("auto", {}, True, False),
        ("auto", {"TERM": "xterm"}, False, False),
        ("auto", {"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        ("auto", {"TERM": "xterm", "NO_COLOR": ""}, True, True),
        ("auto", {"FORCE_COLOR": "1"}, False, True),
        ("always", {"NO_COLOR": "1"}, False, True),
        ("never", {"FORCE_COLOR": "1", "TERM": "xterm"}, True, False),
    ],
)
def test_colour_is_chosen(
    choice: Any, environment: dict[str, str], terminal: bool, expected: bool
) -> None:
    """The option decides, then the environment, then the terminal."""
    assert use_color(choice, environment, terminal=terminal) is expected


def test_narrow_tags_are_below_their_repositories() -> None:
    """On 80 columns a repository is written once, above its tags, whose columns are in line."""
    row = {"digest": NEW, "changed_at": timestamp(NOW), "size": 7, "updated": None}
    rows = [
        {**row, "repository": name, "tag": tag, "image_id": None}
        for name, tag in (("r/api", "v1"), ("r/api", "v2"), ("r/web", "nightly"))
    ]

    def lines(rows: Sequence[Row], width: int) -> list[str]:
        view = View(width, NOW)
        return list(render(tag_blocks(rows, view), view))

    assert lines(rows, 80) == [
        "r/api",
        "tag      digest        changed_at        size",
        "v1       bbbbbbbbbbbb  2026-05-03 12:00   7 B",
        "v2       bbbbbbbbbbbb  2026-05-03 12:00   7 B",
        "",
        "r/web",
        "nightly  bbbbbbbbbbbb  2026-05-03 12:00   7 B",
        "3 tags in 2 repositories",
    ]
    assert lines(rows, 100)[1].split()[:2] == ["r/api", "v1"]
    assert lines(rows[1:], 80)[1].split()[:2] == ["r/api", "v2"]
    assert lines(rows[:2], 80)[:2] == ["r/api", "tag  digest        changed_at        size"]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("known", [True, False])
def test_unknown_digest_is_unknown_once(known: bool, width: int) -> None:
    """The row of a digest to which no tag leads says so once, whatever columns there are."""
    unknown = {**dict.fromkeys(column.key for column in FIND_COLUMNS), "query": OLD}
    unknown["role"] = "unknown"
    found = {
        **unknown,
        "query": NEW,
        "repository": "r/api",
        "tag": "v1",
        "role": "layer",
        "digest": NEW,
        "valid_from": timestamp(NOW),
    }
    view = View(width, NOW)
    *lines, _ = render(find_blocks([unknown, *[found] * known], view, []), view)
    assert "\n".join(lines).count("unknown") == 1
    assert ("layer" in "\n".join(lines)) == (known and width > min(WIDTHS))


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (None, ""),
        ("ok", ""),
        ("fault", "the verification of 2026-11-26 12:38 found a fault: run tagsync verify"),
        ("failed", "the verification of 2026-11-26 12:38 did not finish: run tagsync verify"),
    ],
)
def test_status_shows_a_verification_only_if_it_was_not_ok(
    result: Result | None, sentence: str
) -> None:
    """One line says that the daemon's last verification found a fault or did not finish."""
    last = result and Verification("2026-11-26T12:38:00.000Z", result, 1.5, "detail")
    view = View(80, NOW)
    assert "\n".join(render(verification_block(last, view), view)) == sentence

"""The counts of the changes of each tag agree with the changes."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tagsync.audit.change_log import EVERYTHING, ChangeFilter
from tagsync.audit.queries import Audit
from tagsync.models import Tag
from tests.support.audit import PollAt, RunQuery, at, pointing

FILTERS = [
    ([], EVERYTHING),
    (["swr/team/api"], ChangeFilter(baseline=False)),
    (["swr/team/api:v*"], EVERYTHING),
    (["*"], ChangeFilter(tag="[av]*")),
    ([], ChangeFilter(since=at(6), until=at(11))),
    (["swr/team/api"], ChangeFilter(tag="v1", kinds=("updated",))),
]


@pytest.mark.parametrize(("patterns", "wanted"), FILTERS)
def test_counts_agree_with_the_changes(
    patterns: Sequence[str],
    wanted: ChangeFilter,
    poll_at: PollAt,
    run_query: RunQuery,
    database: Path,
) -> None:
    """For each filter, the counts are those of the rows of `tagsync log`."""
    poll_at(0, pointing("v1", "1"), "a", "b")
    poll_at(5, pointing("v1", "2"), "a", "v2")
    poll_at(10, Tag("v1", "sha256:2", size=7), "a", "v2")
    poll_at(15, pointing("v1", "1"), "b")
    rows = run_query("log", patterns, wanted)
    expected = Counter((row["tag"], row["kind"], row["moved"]) for row in rows)
    with Audit.open(database) as audit:
        counts = list(audit.count_changes(patterns, wanted))
    found = {(each.tag, each.kind, bool(each.moved)): each.changes for each in counts}
    assert found == expected
    assert len(found) == len(counts) > 0

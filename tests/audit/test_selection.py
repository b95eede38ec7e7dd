"""The selection of one repository or one tag by name."""

import pytest

from tagsync.audit.selection import exact_pattern, select
from tagsync.models import Repository

NAMES = ["team/a*", "team/ab", "team/[a]", "team/a", "team/x:y", "team/x?z"]


@pytest.mark.parametrize("name", NAMES[:4])
@pytest.mark.parametrize("tag", ["v?", "v1", "[v]1", "a:b", "*"])
def test_an_exact_pattern_selects_one_name(name: str, tag: str) -> None:
    """Signs of globs in a name stand for themselves."""
    known = [Repository("swr", each) for each in NAMES]
    selection = select(known, [exact_pattern(f"swr/{name}", tag)])
    assert [repository.name for repository in selection.repositories] == [name]
    tags = ("v?", "v1", "[v]1", "a:b", "*", "vv")
    assert [each for each in tags if selection.has(f"swr/{name}", each)] == [tag]
    assert not select(known, [exact_pattern(f"swr/{name}")]).narrowed


def test_a_colon_in_a_repository_is_no_tag() -> None:
    """A colon in the name of a repository does not narrow the pattern to tags."""
    known = [Repository("swr", each) for each in NAMES]
    selection = select(known, [exact_pattern("swr/team/x:y")])
    assert [repository.name for repository in selection.repositories] == ["team/x:y"]
    assert not selection.narrowed

"""The tree of errors in the module's docstring."""

import inspect
import re

import pytest

from tagsync import errors
from tagsync.errors import RegistryError, TagsyncError, UnknownRepository, UnknownTag

NAMES = ("swr/team-a/api", "swr/team-b/frontend", "swr/web", "hub/library/python")


def documented_errors() -> dict[str, tuple[str | None, bool]]:
    """Return the parent of each error in the docstring, and whether it is transient."""
    found: dict[str, tuple[str | None, bool]] = {}
    parents: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^ {4}([│├└─ ]*)(\w+)( +\*)? ", f"{line} ")
        if match:
            depth = len(match[1])
            while parents and parents[-1][0] >= depth:
                parents.pop()
            found[match[2]] = (parents[-1][1] if parents else None, bool(match[3]))
            parents.append((depth, match[2]))
    return found


def test_docstring_shows_the_tree_of_errors() -> None:
    """The tree in the docstring has every error, its base class and a transient mark."""
    classes = {
        name: item
        for name, item in inspect.getmembers(errors, inspect.isclass)
        if issubclass(item, TagsyncError)
    }
    expected = {
        name: (
            None if item is TagsyncError else item.__bases__[0].__name__,
            issubclass(item, RegistryError) and item.transient,
        )
        for name, item in classes.items()
    }
    assert documented_errors() == expected


@pytest.mark.parametrize(
    ("pattern", "near"),
    [
        ("swr/team-a/apj", "swr/team-a/api"),
        ("team-a/api", "swr/team-a/api"),
        ("*/frontent", "swr/team-b/frontend"),
        ("api", "swr/team-a/api"),
        ("swr/frontend/*", "swr/team-b/frontend"),
        ("sw/web", "swr/web"),
        ("hub/python", "hub/library/python"),
    ],
)
def test_similar_repository_is_named(pattern: str, near: str) -> None:
    """A misspelled, shortened or incomplete name leads to the one that is meant."""
    assert f": the nearest is {near}; " in str(UnknownRepository(pattern, NAMES))


@pytest.mark.parametrize("pattern", ["nope", "swr/nope", "swr/", "a", "quay/zzz", "*x*"])
def test_unrelated_word_has_no_nearest(pattern: str) -> None:
    """For a word that is similar to no name, the message says where the names are."""
    text = str(UnknownRepository(pattern, NAMES))
    assert "nearest" not in text
    assert "tagsync status --all shows the names" in text
    assert "there are no repositories yet" in str(UnknownRepository(pattern, ()))


def test_only_a_similar_tag_is_named() -> None:
    """A tag that was never recorded leads to a similar one, if there is one."""
    known = ("latest", "v1.0.1", "2026-05")
    for tag, near in (("latets", "latest"), ("v1.0.2", "v1.0.1"), ("1.0", "v1.0.1")):
        assert str(UnknownTag(tag, ["swr/api"], known)).endswith(f": the nearest is {near}")
    assert str(UnknownTag("nope", ["swr/api"], known)).endswith(
        ": tagsync log shows the tags that were"
    )
    assert str(UnknownTag("nope", ["swr/api"], ())).endswith(": no tags are recorded there")

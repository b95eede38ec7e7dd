"""Names for the completion of command lines."""

from pathlib import Path

import pytest

from tagsync.audit.names import LIMIT, MOST_REPOSITORIES, repository_names, tag_names
from tagsync.errors import StoreError
from tests.support.record import insert_names as fill


def test_names_with_a_prefix_are_found(database: Path) -> None:
    """Full names, and the tags of the repositories that a pattern matches, are in order."""
    fill(database, ["a/web", "a/api", "b/api"], ["v2", "v1", "latest"])
    assert repository_names(database, "") == ["r/a/api", "r/a/web", "r/b/api"]
    assert repository_names(database, "r/a/") == ["r/a/api", "r/a/web"]
    assert repository_names(database, "r/a/api/") == []
    assert tag_names(database, ["r/a/api"], "v") == ["v1", "v2"]
    assert tag_names(database, ["r/*"], "") == ["latest", "v1", "v2"]
    assert tag_names(database, (), "l") == ["latest"]
    assert tag_names(database, ["r/c"], "") == []


@pytest.mark.parametrize(
    "odd", ["$(id)", "`id`", "a b", "a;b", "*", "a'b", "a\nb", "-x", "ä", b"x"]
)
def test_odd_names_are_left_out(odd: object, database: Path) -> None:
    """A name that may mean something to a shell, or is no text, is not returned."""
    fill(database, ["a/api", f"a/{odd!s}" if odd not in {"-x", b"x"} else "a b"], ["v1", odd])
    assert repository_names(database, "") == ["r/a/api"]
    assert tag_names(database, (), "") == ["v1"]


@pytest.mark.parametrize("prefix", ["\x00", "\udcff", "%", "*", "[a", "'", "\U0010ffff"])
def test_an_odd_prefix_has_no_match(prefix: str, database: Path) -> None:
    """What begins no name is no error either."""
    fill(database, ["a/api"], ["v1"])
    assert repository_names(database, prefix) == []
    assert tag_names(database, (), prefix) == []
    assert tag_names(database, [f"{prefix}x"], "") == []


def test_many_names_keep_their_common_prefix(database: Path) -> None:
    """Too many names are limited so that a shell does not complete more than they share."""
    names = [f"a/{number:04}" for number in range(LIMIT)]
    fill(database, names, ["v1"])
    assert repository_names(database, "") == [f"r/{name}" for name in names]
    fill(database, ["b/last"], [f"t{number:04}" for number in range(LIMIT)] + ["u"])
    found = repository_names(database, "")
    assert found == [*(f"r/{name}" for name in names[: LIMIT - 1]), "r/b/last"]
    assert tag_names(database, ["r/b/*"], "")[-1] == "u"
    assert len(tag_names(database, ["r/b/*"], "")) == LIMIT


def test_the_tags_of_too_many_repositories_are_not_searched(database: Path) -> None:
    """A search stays fast, also in a large database."""
    fill(database, [f"a/{number}" for number in range(MOST_REPOSITORIES)], ["v1"])
    assert tag_names(database, (), "") == ["v1"]
    fill(database, ["a/one-more"], ["v1"])
    assert tag_names(database, (), "") == []
    assert tag_names(database, ["r/a/1*"], "") == ["v1"]


def test_a_missing_database_is_an_error(database: Path) -> None:
    """Without a database the caller gets an expected error, and no file is created."""
    with pytest.raises(StoreError):
        repository_names(database, "")
    assert not database.exists()

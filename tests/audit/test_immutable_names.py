"""Names of tags that promise that the tag never moves."""

import inspect
import re

import pytest

from tagsync.audit.immutable_names import promises_never_to_move

HASH = "3f2a1bc4" * 5

PROMISES = [
    "1.2.3",
    "v1.2.3",
    "V10.20.30",
    "app-1.2.3",
    "release_v1.2.3",
    "v1.2.3-rc.1",
    "1.2.3-alpine",
    "1.2.3.4",
    "1.2.3-dev.20240501",
    "v1.2.3-5-g3f2a1bc",
    "2024-05-01",
    "2024.05.01",
    "20240501",
    "nightly-20240501",
    "20240501120000",
    "202405011200",
    "build-2024_05_01",
    "sha-abcdef1",
    "sha-1234567",
    "main-3f2a1bc",
    "3f2a1bc",
    "abc1234",
    HASH,
    "1" * 40,
    HASH[:32] + HASH[:32],
]
MOVES = [
    "latest",
    "stable",
    "main",
    "nightly",
    "1",
    "v1",
    "1.2",
    "v1.2",
    "1.2-alpine3.18.4",
    "1.2.x",
    "1.2.3-SNAPSHOT",
    "1.2.3-latest",
    "v1.2.3-nightly",
    "2024",
    "2024-05",
    "2024-13-01",
    "2024-05-32",
    "20241301",
    "120240501",
    "2024-05.01",
    "1234567",
    "deadbeef",
    "sha-abc",
    "feature-abc123",
    f"sha256-{HASH[:32]}{HASH[:32]}.sig",
    "",
]


@pytest.mark.parametrize("tag", PROMISES)
def test_name_of_one_build_promises(tag: str) -> None:
    """A full version, a date or a commit names one build."""
    assert promises_never_to_move(tag)


@pytest.mark.parametrize("tag", MOVES)
def test_name_of_a_channel_does_not_promise(tag: str) -> None:
    """A name of a branch, a channel, or a part of a version is expected to move."""
    assert not promises_never_to_move(tag)


def test_examples_of_the_docstring_hold() -> None:
    """The function says of each of its examples what its table says."""
    text = inspect.getdoc(promises_never_to_move) or ""
    rows = re.findall(r"^(``.+?) {2,}(``.+)$", text, re.MULTILINE)
    assert len(rows) > 5
    for promising, moving in rows:
        for expected, cell in ((True, promising), (False, moving)):
            for tag in re.findall(r"``([^`…]+)``", cell):
                assert promises_never_to_move(tag) is expected, tag


def test_long_names_take_no_time() -> None:
    """A hostile name of the longest length is decided without backtracking for long."""
    for tag in ("a-" * 64, "1" * 128, "a1" * 63 + "g", "1." * 64, "-" * 128, "v" * 128):
        promises_never_to_move(tag)

"""The cases that fuzzing begins with, and those that it found."""

from collections.abc import Callable

import pytest

from tests.fuzz.targets import SEEDS, TARGETS


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
@pytest.mark.parametrize("body", [b"", *SEEDS])
def test_a_case_holds(target: Callable[[bytes], None], body: bytes) -> None:
    """No kept case breaks what has to hold of a body."""
    target(body)

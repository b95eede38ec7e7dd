"""The inputs that fuzzing starts with, and those that it found."""

from collections.abc import Callable

import pytest

from tests.fuzz.targets import SEEDS, TARGETS


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
@pytest.mark.parametrize("body", [b"", *SEEDS])
def test_seed_holds(target: Callable[[bytes], None], body: bytes) -> None:
    """No stored input breaks a target."""
    target(body)

"""The torture of registries' own lists, in its short form."""

from pathlib import Path
from secrets import randbelow

import pytest

from tests.torture.lists import VENDORS, torture


@pytest.mark.torture
@pytest.mark.parametrize("vendor", VENDORS)
def test_record_stays_true_under_faults_of_lists(vendor: str, tmp_path: Path) -> None:
    """No false change is recorded, and a list that lies is noticed."""
    seed = randbelow(10**6)
    outcome = torture(vendor, seed, tmp_path)
    assert not outcome.wrong, f"python -m tests.torture.lists --seed {seed}"
    assert outcome.figures["changes updated"] > 0
    assert outcome.figures[f"polls by {vendor}"] > 0
    assert any(name.startswith("fault ") for name in outcome.figures)

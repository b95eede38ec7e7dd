"""The folders of the source tree that tests read."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent.parent
DATA: Final = ROOT / "tests/data"

"""``python -m tests.screens``: write the pictures of the documentation."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.screens.take import FOLDER, pictures


def main() -> None:
    """Write each picture, into the folder given or into the documentation."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    target.mkdir(exist_ok=True, parents=True)
    with TemporaryDirectory() as folder:
        for name, svg in pictures(Path(folder)):
            (target / name).write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()

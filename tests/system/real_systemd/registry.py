"""The registry of the machine: an emulated SWR that obeys lines of a FIFO.

The lines are ``push REPOSITORY TAG TEXT``, ``delete REPOSITORY TAG``, ``fill TEXT``, ``stall on``
and ``stall off``. ``fill`` pushes an image under 1,000 tags of each of 50 repositories.
"""

import os
import sys
from pathlib import Path

from tagsync.emulator import Emulator, Faults, Keys

_FILLED = [(f"burst/r{number}", f"v{tag}") for number in range(50) for tag in range(1000)]


def obey(swr: Emulator, faults: Faults, line: str) -> None:
    """Carry out one line."""
    match line.split():
        case ["push", repository, tag, text]:
            swr.push(repository, tag, text)
        case ["delete", repository, tag]:
            swr.delete(repository, tag)
        case ["fill", text]:
            for repository, tag in _FILLED:
                swr.push(repository, tag, text)
        case ["stall", state]:
            faults.on = state == "on"


def main(fifo: Path) -> None:
    """Serve until killed."""
    faults = Faults({"stall": 1.0})
    faults.on = False
    # Open for writing, too: otherwise each writer that closes the FIFO would end the file, and a
    # line that the next one writes before the file is opened again would be lost.
    both = os.open(fifo, os.O_RDWR)
    with (
        Emulator(port=8080, keys={"AKEXAMPLE": Keys("SKEXAMPLE")}, faults=faults) as swr,
        os.fdopen(both) as lines,
    ):
        for line in lines:
            obey(swr, faults, line)
            Path(f"{fifo}.done").write_text(line)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

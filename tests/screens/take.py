"""Run the commands of the pictures on a terminal, at a fixed time."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from structlog.testing import capture_logs

from tagsync.emulator import Emulator
from tests.screens.picture import to_svg
from tests.screens.scene import CHECKOUT, END, Scene
from tests.support.clock import FakeClock
from tests.support.commands import environment, run_program_on_terminal
from tests.support.paths import ROOT

FOLDER: Final = ROOT / "docs" / "screens"
"""The folder of the pictures."""

WIDTH: Final = 100
"""Width of the terminals, in cells."""

COMMANDS: Final = {
    "sync": "sync 2>> sync.log",
    "status": "status",
    "log": "log --since 2026-11-26",
    "tags-at": "tags 'swr/pay/*' --at 2026-11-26T06:55",
    "find": "find {image}",
    "coverage": "coverage --summary",
}
"""The command of each picture. They run in this order, and `sync` records the last changes."""

BETWEEN: Final = timedelta(seconds=20)
"""The time between two commands."""

_TERMINAL: Final = {"TERM": "xterm-256color", "COLUMNS": str(WIDTH), "TAGSYNC_NO_PAGER": "1"}

_SOURCE: Final = Path(__file__).with_name("fixed_clock.c")


def pictures(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the content of each picture.

    Args:
        folder: An empty folder for the record.

    Raises:
        OSError, CalledProcessError: If there is no C compiler, or it fails.
    """
    library = compile_clock(folder)
    clock = FakeClock()
    with Emulator(clock=clock) as swr:
        with capture_logs():
            scene = Scene(folder, swr, clock)
        scene.change()
        for number, (name, form) in enumerate(COMMANDS.items()):
            command = f"tagsync {form.format(image=scene.digest(CHECKOUT, 'v2.14.1'))}"
            written = run_at(END + number * BETWEEN, command, folder, library)
            text = f"\x1b[1;32m$\x1b[0m \x1b[1m{command}\x1b[0m\n{written}"
            yield f"{name}.svg", to_svg(name, " ".join(command.split()[:2]), text, WIDTH)


def compile_clock(folder: Path) -> Path:
    """Compile the library that sets the clock of a process, and return its path."""
    library = folder / "fixed_clock.so"
    options = ("-O2", "-shared", "-fPIC", "-Wall", "-Werror")
    subprocess.run(["cc", *options, "-o", str(library), str(_SOURCE), "-ldl"], check=True)
    return library


def run_at(moment: datetime, command: str, folder: Path, library: Path) -> str:
    """Run a command on a terminal at a time, and return what it prints there.

    The duration of a pass is different in each run, and is shown as 0.2 s.
    """
    variables = {"LD_PRELOAD": str(library), "START": str(int(moment.timestamp()))}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**environment(), **_TERMINAL, **variables, "PATH": path}
    _, written = run_program_on_terminal(["sh", "-c", command], folder, env)
    return re.sub(r"\bin \d+\.\d s:", "in 0.2 s:", written.rstrip())

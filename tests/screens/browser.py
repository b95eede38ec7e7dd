"""Take pictures of pages of ``tagsync web`` in a real browser, at a fixed time."""

import base64
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from structlog.testing import capture_logs

from tagsync.emulator import Emulator
from tests.screens.scene import CHECKOUT, END, Scene
from tests.screens.take import compile_clock
from tests.support.clock import FakeClock
from tests.support.commands import environment
from tests.support.web import Browser, emulate, page_of

WIDTH: Final = 1000
"""Width of the window in pixels."""

PAGES: Final = {"web": page_of("repository", name=f"swr/{CHECKOUT}")}
"""The page of each picture."""

_LAST: Final = "#timeline"
"""A picture ends above this element."""


def photographs(folder: Path, browser: Browser) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of each picture, as PNG.

    Args:
        folder: An empty folder for the record.
        browser: A real browser.

    Raises:
        OSError, CalledProcessError: If there is no C compiler, or it fails.
    """
    library = compile_clock(folder)
    clock = FakeClock()
    with Emulator(clock=clock) as swr, capture_logs():
        Scene(folder, swr, clock)
    variables = {"LD_PRELOAD": str(library), "START": str(int(END.timestamp()))}
    arguments = (sys.executable, "-m", "tagsync", "web", "--port", "0")
    with subprocess.Popen(
        arguments, cwd=folder, env={**environment(), **variables}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        try:
            address = process.stdout.readline().strip().rstrip("/")
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+", address)
            for name, page in PAGES.items():
                emulate(browser, WIDTH)
                browser.get(address + page)
                yield f"{name}.png", _picture(browser)
        finally:
            process.terminate()


def _picture(browser: Browser) -> bytes:
    """Return the page from its top to the heading `_LAST`, without the rest."""
    bottom = browser.execute_script(
        "return document.querySelector(arguments[0]).getBoundingClientRect().top", _LAST
    )
    clip = {"x": 0, "y": 0, "width": WIDTH, "height": bottom - 24, "scale": 1}
    options = {"format": "png", "clip": clip, "captureBeyondViewport": True}
    taken = browser.execute_cdp_cmd("Page.captureScreenshot", options)
    return base64.b64decode(taken["data"])

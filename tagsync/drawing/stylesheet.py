"""The stylesheet of all drawings."""

from functools import cache
from pathlib import Path
from typing import Final

_FILE: Final = Path(__file__).with_name("drawing.css")


@cache
def stylesheet() -> str:
    """Return the stylesheet: for light and dark screens, and for print.

    All its rules are below the class ``drawing``. It contains no URL, so that a page with a strict
    Content-Security-Policy may serve it, and a file that is opened offline may contain it.
    """
    return _FILE.read_text(encoding="utf-8")

"""``python -m tests.screens``: write the pictures of the documentation."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.screens.browser import photographs
from tests.screens.take import FOLDER, pictures
from tests.support.web import find_browser, open_browser


def main() -> None:
    """Write each picture, into the folder given or into the documentation."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    target.mkdir(exist_ok=True, parents=True)
    with TemporaryDirectory() as folder:
        for name, svg in pictures(Path(folder)):
            (target / name).write_text(svg, encoding="utf-8")
    found = find_browser()
    if not found:
        sys.exit("chromium and chromedriver are not installed: the pictures of pages are left out")
    with TemporaryDirectory() as folder, TemporaryDirectory() as profile:
        browser = open_browser(*found, Path(profile))
        try:
            for name, png in photographs(Path(folder), browser):
                (target / name).write_bytes(png)
        finally:
            browser.quit()


if __name__ == "__main__":
    main()

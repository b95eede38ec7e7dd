"""The pictures in the documentation: current, small, and without the network."""

import os
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.screens.browser import PAGES as PAGES_OF_PICTURES
from tests.screens.browser import WIDTH
from tests.screens.picture import to_svg
from tests.screens.take import COMMANDS, FOLDER, pictures
from tests.support.documents import PAGES
from tests.support.paths import ROOT

NAMESPACE = "http://www.w3.org/2000/svg"

NAMES = [f"{name}.svg" for name in COMMANDS]

PHOTOGRAPHS = [f"{name}.png" for name in PAGES_OF_PICTURES]

LARGEST = 20_000
"""Largest size of a picture, in bytes."""


def test_the_folder_has_these_pictures() -> None:
    """Each command has a picture, and there is no other one."""
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted([*NAMES, *PHOTOGRAPHS])
    assert len(NAMES) == 6
    assert len(PHOTOGRAPHS) <= 6


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_a_picture_of_a_page_is_small(name: str) -> None:
    """It is a PNG, as wide as the window, and no burden for a clone."""
    content = (FOLDER / name).read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert int.from_bytes(content[16:20]) == WIDTH
    assert len(content) <= 150_000


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_needs_nothing_from_elsewhere(name: str) -> None:
    """A picture has no address but the XML namespace, loads no font, and is small."""
    text = (FOLDER / name).read_text()
    assert re.findall(r"\w+://[^\s\"'<]*", text) == [NAMESPACE]
    assert not re.search(r"@font-face|@import|<script|href|url\((?!#)", text)
    assert len(text.encode()) <= LARGEST
    assert ET.fromstring(text).tag == f"{{{NAMESPACE}}}svg"  # noqa: S314  our own file


def test_each_picture_is_shown_with_a_description() -> None:
    """Each picture is in a page, and has a text for people who do not see it."""
    shown = [
        (found[2], found[1])
        for page in PAGES
        for found in re.finditer(r"!\[([^\]]*)\]\(((?:docs/)?screens/[^)]*)\)", page.read_text())
    ]
    assert {Path(target).name for target, _ in shown} == {*NAMES, *PHOTOGRAPHS}
    assert all(len(description) > 30 for _, description in shown)
    assert any(target.startswith("docs/") for target, _ in shown), "the README shows one"


def test_text_becomes_a_picture() -> None:
    """Text is escaped, colours become styles, and equal text gives an equal picture."""
    text = "\x1b[31m<deleted>\x1b[0m & → ░█"
    svg = to_svg("one", "title", text, 40)
    assert "&lt;deleted&gt;" in svg
    assert "→&#160;░█" in svg
    assert "fill: #ff7b72" in svg
    assert svg == to_svg("one", "title", text, 40)


@pytest.mark.processes
def test_pictures_show_what_the_commands_print(tmp_path: Path) -> None:
    """`python -m tests.screens` makes the pictures that are in the documentation."""
    if shutil.which("cc") is None and not os.environ.get("CI"):
        pytest.skip("needs a C compiler")
    made = dict(pictures(tmp_path))
    assert list(made) == NAMES
    for name, svg in made.items():
        assert svg == (FOLDER / name).read_text(), (
            f"{(FOLDER / name).relative_to(ROOT)} is old: run python -m tests.screens"
        )

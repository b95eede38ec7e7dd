"""Fixtures of the web pages: one recorded world, one server and one browser for all tests."""

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from tests.support.commands import command
from tests.support.documents import section
from tests.support.web import (
    Browser,
    Trap,
    configure,
    find_browser,
    hostile_names,
    open_browser,
    record_world,
    serving,
)


@pytest.fixture(scope="session")
def trap() -> Iterator[Trap]:
    """A listener that nothing in a page may visit."""
    opened = Trap()
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def hostile(trap: Trap) -> tuple[str, ...]:
    """Names of tags that visit the trap if they are treated as more than text."""
    return hostile_names(trap.url)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, hostile: Sequence[str]) -> Path:
    """A folder like the demo's, with a record of ordinary and of hostile tags."""
    root = tmp_path_factory.mktemp("web")
    path = root / "tagsync-demo"
    path.mkdir()
    configure(path)
    record_world(path / "tagsync.db", hostile)
    return root


@pytest.fixture(scope="session")
def served(folder: Path) -> Path:
    """The database that `site` serves."""
    return folder / "tagsync-demo" / "tagsync.db"


@pytest.fixture(scope="session")
def site(folder: Path) -> Iterator[str]:
    """The address at which the documented command serves the record."""
    text = section("docs/audit.md", "In a browser")
    (shown,) = re.findall(r"^\.venv/bin/tagsync (.+)$", text, re.MULTILINE)
    with serving(command(*shlex.split(shown), "--port", "0"), folder) as (address, _):
        yield address


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A real browser."""
    found = find_browser()
    if not found:
        missing = "Debian's chromium and chromium-driver are not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    chrome = open_browser(*found, tmp_path_factory.mktemp("profile"))
    yield chrome
    chrome.quit()


@pytest.fixture(scope="session")
def client() -> Iterator[httpx.Client]:
    """An HTTP client without a browser."""
    with httpx.Client(timeout=60) as opened:
        yield opened

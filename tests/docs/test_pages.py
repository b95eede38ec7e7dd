"""The pages of the documentation: links, names of files, tables and lengths."""

import re
import sqlite3
from pathlib import Path
from urllib.parse import unquote

import pytest

from tagsync.database import schema
from tagsync.database.store import Store
from tests.support.documents import PAGES, anchors, links, read_page, section
from tests.support.paths import ROOT

NAMES = [str(path.relative_to(ROOT)) for path in PAGES]


def broken_links(folder: Path, text: str) -> list[str]:
    """Return the links that are neither https nor relative to an existing target."""

    def resolves(link: str) -> bool:
        target, _, anchor = unquote(link).partition("#")
        if not target:
            return anchor in anchors(text)
        file = folder / target
        if target.startswith("/") or not file.exists():
            return False
        return not anchor or anchor in anchors(file.read_text())

    return [link for link in links(text) if not link.startswith("https://") and not resolves(link)]


@pytest.mark.parametrize("name", NAMES)
def test_each_link_resolves(name: str) -> None:
    """Each relative link of a page leads to a file, and each anchor to a heading."""
    assert broken_links((ROOT / name).parent, read_page(name)) == []


def test_a_broken_link_is_found() -> None:
    """The check notices a missing file, a missing heading and an absolute path."""
    text = """\
# One title: `code`, and (more)

[a](README.md) [b](docs/audit.md#the-audit) [c](#one-title-code-and-more) [d](https://sqlite.org)
[e](missing.md) [f](docs/audit.md#missing) ![g](/README.md "title") [h](#missing) `[i](code.md)`
[j]: docs/missing.md

```sh
[k](block.md)
```
"""
    assert broken_links(ROOT, text) == [
        *("missing.md", "docs/audit.md#missing", "/README.md", "#missing", "docs/missing.md")
    ]


def test_each_page_is_linked_from_the_readme() -> None:
    """The README, of at most 150 lines, links to every page."""
    readme = read_page("README.md")
    assert len(readme.splitlines()) <= 150
    assert {name for name in NAMES if name != "README.md"} <= set(links(readme))


@pytest.mark.parametrize("name", NAMES)
def test_each_test_that_a_page_names_exists(name: str) -> None:
    """Each file or folder of tests that a page names is there."""
    named = re.findall(r"`(tests/[\w/.]+|test_\w+\.py)`", read_page(name))
    if name == "docs/guarantees.md":
        assert len(named) > 15
    for test in named:
        assert (ROOT / test).exists() or any((ROOT / "tests").rglob(test)), test


def test_each_table_of_the_database_is_described(tmp_path: Path) -> None:
    """The page on the database describes each table, view and column like the schema."""
    described = "\n".join(
        f"### {table}\n\n{text}\n\n| column | meaning |\n|---|---|\n"
        + "".join(f"| `{column}` | {meaning} |\n" for column, meaning in columns.items())
        for table, (text, columns) in schema.descriptions().items()
    )
    assert section("docs/database.md", "Tables and views").endswith(described)
    with Store.open(tmp_path / "tagsync.db"):
        connection = sqlite3.connect(tmp_path / "tagsync.db")
        for table, (_, columns) in schema.descriptions().items():
            rows = connection.execute(f"PRAGMA table_xinfo({table})").fetchall()
            assert list(columns) == [row[1] for row in rows]
        found = connection.execute(
            "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"
            " AND name NOT GLOB '*sqlite_*' AND name NOT GLOB 'image_search*'"
        ).fetchall()
        connection.close()
    assert sorted(schema.descriptions()) == sorted(name for (name,) in found)

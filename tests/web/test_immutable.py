"""The pages show changes of immutable tags first, until they are accepted."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tagsync.database.store import Store
from tagsync.models import Repository
from tests.support.clock import FakeClock
from tests.support.commands import command
from tests.support.immutable import add_acceptance, add_violation
from tests.support.record import query
from tests.support.registries import poll_any_names
from tests.support.web import configure, serving

pytestmark = pytest.mark.processes

API = Repository("swr", "team/api")
TAGS = [f"v{number}" for number in range(9)]
PAGES = ("/", "/repository?name=swr/team/api", "/tag?repository=swr/team/api&tag=v0")


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database in which nine tags moved that must not."""
    configure(tmp_path)
    path, clock = tmp_path / "tagsync.db", FakeClock()
    with Store.open(path) as store:
        for content in ("first", "second"):
            clock.advance(minutes=5)
            poll_any_names(store, clock, API, dict.fromkeys(TAGS, content))
    for change, previous in query(path, "SELECT id, previous_digest FROM tag_moves"):
        add_violation(path, change, previous=previous)
    return path


@pytest.fixture
def site(database: Path) -> Iterator[str]:
    """The address at which the database is served."""
    with serving(command("web", "--port", "0"), database.parent) as (address, _):
        yield address


def section(client: httpx.Client, address: str) -> str:
    """Return the section about immutable tags of a page, or an empty text."""
    answer = client.get(address)
    assert answer.status_code == 200
    match = re.search(r'<section aria-labelledby="immutable">.*?</section>', answer.text, re.DOTALL)
    return match[0] if match else ""


def test_open_changes_come_first_until_they_are_accepted(
    database: Path, site: str, client: httpx.Client
) -> None:
    """The pages name the newest open changes, with links; the page of a tag also accepted ones."""
    front, repository, tag = (section(client, site + page) for page in PAGES)
    assert [text.count("<li>") for text in (front, repository, tag)] == [3, 5, 1]
    assert "9 in all." in front
    assert "tagsync accept 18 --reason TEXT" in front
    for address in set(re.findall('href="(/[^"]+)"', front)):
        assert client.get(site + address.replace("&amp;", "&")).status_code == 200
    text = client.get(site + PAGES[0]).text
    assert text.index('id="immutable"') < text.index('id="fresh"')

    for change in range(10, 19):
        add_acceptance(database, change, reason="<b>a rebuild</b>")
    front, repository, tag = (section(client, site + page) for page in PAGES)
    assert (front, repository) == ("", "")
    assert "by alice (uid 1000): &lt;b&gt;a rebuild&lt;/b&gt;" in tag
    assert "tagsync accept" not in tag

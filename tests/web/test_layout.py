"""The layout of the web pages in a real browser: widths, colours, keyboard, screen reader."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.support.commands import command
from tests.support.web import (
    API,
    HOSTILE,
    INDEX,
    LAYERED,
    LONG,
    LONG_TAG,
    MANIFEST,
    Browser,
    accessibility_faults,
    emulate,
    overflowing,
    page_of,
    record_crowd,
    serving,
    text_of,
)

pytestmark = pytest.mark.processes

PAGES = {
    "front": "/",
    "changes": "/changes",
    "repositories": "/repositories",
    "no-repository": "/repositories?q=nowhere",
    "repository": page_of("repository", name=f"swr/{API}"),
    "hostile-repository": page_of("repository", name=f"swr/{HOSTILE}"),
    "long-repository": page_of("repository", name=f"swr/{LONG}"),
    "tag": page_of("tag", repository=f"swr/{API}", tag="latest"),
    "long-tag": page_of("tag", repository=f"swr/{LONG}", tag=LONG_TAG),
    "coverage": "/coverage",
    "coverage-year": "/coverage?range=1y&registry=swr",
    "coverage-none": "/coverage?q=nowhere",
    "repository-day": page_of("repository", name=f"swr/{API}", range="1d"),
    "hostile-repository-year": page_of("repository", name=f"swr/{HOSTILE}", range="1y"),
    "tag-day": page_of("tag", repository=f"swr/{API}", tag="latest", range="1d"),
    "image-of-layers": f"/image?digest={LAYERED.digest}",
    "image-without-manifest": f"/image?digest=sha256:{'4' * 64}",
    "image-index": f"/image?digest={INDEX.digest}",
    "missing-image": "/image?digest=sha256:00",
    "front-then": "/?at=2h",
    "front-too-early": "/?at=2020-01-01",
    "repository-then": page_of("repository", name=f"swr/{API}", at="8h"),
    "hostile-repository-then": page_of("repository", name=f"swr/{HOSTILE}", at="1h"),
    "long-repository-then": page_of("repository", name=f"swr/{LONG}", at="1h"),
    "tag-then": page_of("tag", repository=f"swr/{API}", tag="latest", at="9h"),
    "long-tag-then": page_of("tag", repository=f"swr/{LONG}", tag=LONG_TAG, at="1h"),
    "search": "/search",
    "search-name": "/search?q=team",
    "search-tag": "/search?q=latest&at=9h",
    "search-digest": f"/search?q={sha256(b'first').hexdigest()}",
    "search-digest-then": f"/search?q={sha256(b'first').hexdigest()}&at=9h",
    "search-reference": page_of(
        "search", q=f"docker pull example.com/{API}:latest@sha256:{'a' * 64}"
    ),
    "search-long-reference": page_of("search", q=f"{'h' * 200}.example/{'n' * 200}:{'t' * 200}"),
    "search-long": page_of("search", q="x" * 1000),
    "difference": "/difference",
    "difference-result": page_of("difference", **{"from": "9h30m"}),
    "difference-hostile": page_of("difference", **{"from": "9h30m", "pattern": f"swr/{HOSTILE}"}),
    "gaps": "/gaps?range=all",
    "no-gaps": "/gaps?minutes=9999",
    "layer": f"/layer?digest=sha256:{'5' * 64}",
    "questions": "/questions",
    "question-with-repository": "/tagsync/holes",
    "question": "/tagsync/moved-last-week",
    "question-without-rows": "/tagsync/moved-last-week?days=0",
    "tables": "/tagsync",
    "table": "/tagsync/tags",
    "view": "/tagsync/change_log",
    "filtered-table": "/tagsync/tags?tag__exact=latest&_sort=tag",
    "table-without-rows": "/tagsync/tags?tag__exact=nothing",
    "change": "/tagsync/changes/4",
    "image": "/tagsync/images/{image}",
    "query": page_of("tagsync", sql="SELECT * FROM repositories"),
    "wrong-query": page_of("tagsync", sql="SELECT nothing"),
    "missing": "/nowhere",
    "missing-repository": page_of("repository", name="swr/typo"),
}
"""A page of each kind."""


@pytest.fixture(params=PAGES)
def page(request: pytest.FixtureRequest, site: str, served: Path) -> str:
    """The address of a page of each kind."""
    with closing(sqlite3.connect(served)) as connection:
        (image,) = connection.execute(
            "SELECT id FROM images WHERE manifest = ?", [MANIFEST]
        ).fetchone()
    return f"{site}{PAGES[request.param].replace('{image}', str(image))}"


@pytest.fixture
def window(browser: Browser) -> Iterator[Browser]:
    """The browser, whose window a test may change."""
    yield browser
    emulate(browser, 1280)


@pytest.mark.parametrize("width", [390, 600, 1280])
def test_nothing_is_off_screen(window: Browser, page: str, width: int) -> None:
    """No text reaches beyond the window, except in regions that the keyboard scrolls."""
    emulate(window, width)
    window.get(page)
    assert overflowing(window) == []


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "dark")])
def test_accessible(window: Browser, page: str, width: int, scheme: str) -> None:
    """axe-core finds no serious fault, contrast included."""
    emulate(window, width, scheme)
    window.get(page)
    assert accessibility_faults(window) == []


def test_structure(window: Browser, page: str) -> None:
    """Each page has one h1, its landmarks, and a caption and scopes in each table."""
    window.get(page)
    assert window.find_element(By.TAG_NAME, "html").get_attribute("lang") == "en"
    assert len(window.find_elements(By.TAG_NAME, "h1")) == 1
    for landmark in ("body > header", "nav[aria-label]", "form[role=search]", "main", "footer"):
        assert len(window.find_elements(By.CSS_SELECTOR, landmark)) == 1, landmark
    for table in window.find_elements(By.TAG_NAME, "table"):
        # A caption within closed details has no visible text.
        caption = table.find_element(By.TAG_NAME, "caption").get_attribute("textContent")
        assert caption
        assert caption.strip()
        assert table.find_elements(By.TAG_NAME, "th")
        assert not table.find_elements(By.CSS_SELECTOR, "th:not([scope])")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_colour_scheme_is_followed(window: Browser, site: str, scheme: str) -> None:
    """The ground is light or dark, as the browser's user prefers."""
    emulate(window, 1280, scheme)
    window.get(site)
    ground = window.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
    brightness = sum(int(part) for part in ground.strip("rgba()").split(",")[:3])
    assert (brightness > 600) == (scheme == "light")


def test_rows_are_cards_on_a_narrow_window(window: Browser, site: str) -> None:
    """Below 600 px each cell stands on a line of its own, after the name of its column."""
    emulate(window, 390)
    window.get(f"{site}/changes")
    row = window.find_element(By.CSS_SELECTOR, "tbody tr")
    cells = row.find_elements(By.TAG_NAME, "td")
    tops = [cell.rect["y"] for cell in cells]
    assert tops == sorted(set(tops))
    labels = [
        window.execute_script("return getComputedStyle(arguments[0], '::before').content", cell)
        for cell in cells
    ]
    heads = window.find_elements(By.CSS_SELECTOR, "thead th")
    assert labels == [f'"{head.get_attribute("textContent")}"' for head in heads]


@pytest.fixture(scope="session")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a record whose front page has all that can be on it, with long names."""
    folder = tmp_path_factory.mktemp("crowd")
    record_crowd(folder)
    with serving(command("web", "--port", "0"), folder) as (address, _):
        yield address


@pytest.mark.parametrize("path", ["/", "/?at=40h"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_the_front_page_fits_two_screens(
    window: Browser, crowd: str, path: str, width: int, height: int
) -> None:
    """The longest front page is at most two screens high, and nothing is off screen."""
    emulate(window, width, height=height)
    window.get(f"{crowd}{path}")
    assert window.execute_script("return document.documentElement.scrollHeight") <= 2 * height
    assert overflowing(window) == []


def test_the_front_page_links_to_what_it_leaves_out(window: Browser, crowd: str) -> None:
    """At 390 px each list of the front page shows its beginning, and links to the rest."""
    emulate(window, 390, height=844)
    window.get(crowd)
    for rows, shown, links in (
        ("[aria-labelledby=immutable] li", 2, "[aria-labelledby=immutable] .more a"),
        ("[aria-labelledby=alarms] li", 2, "[aria-labelledby=alarms] .totals a"),
        (".brief tbody tr", 1, "[aria-labelledby=changes] .more a"),
    ):
        found = window.find_elements(By.CSS_SELECTOR, rows)
        assert sum(row.is_displayed() for row in found) == shown < len(found)
        assert all(link.is_displayed() for link in window.find_elements(By.CSS_SELECTOR, links))
    targets = {
        selector: [
            str(link.get_attribute("href")).removeprefix(crowd)
            for link in window.find_elements(By.CSS_SELECTOR, f"{selector} a")
        ]
        for selector in (".totals", "#coverage", ".clamp", "[aria-labelledby=changes] .more")
    }
    assert targets == {
        ".totals": ["/repositories", "/tagsync/immutable-tags-that-moved", "/repositories"],
        "#coverage": ["/coverage"],
        ".clamp": ["/tagsync/verifications"],
        "[aria-labelledby=changes] .more": ["/changes"],
    }


@pytest.mark.parametrize("width", [600, 768, 1000, 1120, 1179, 1180, 1280])
def test_the_header_has_its_search_beside_the_name(window: Browser, site: str, width: int) -> None:
    """At each width the search is on the line of the name, and its text has room."""
    emulate(window, width)
    window.get(site)
    name, search, button, nav = (
        window.find_element(By.CSS_SELECTOR, f".bar {part}").rect
        for part in (".name", "input", "form button", "nav")
    )
    assert name["y"] < search["y"] + search["height"] / 2 < name["y"] + name["height"]
    assert search["width"] >= 120
    assert width - 60 < button["x"] + button["width"] < width
    if width >= 1180:
        assert nav["y"] < name["y"] + name["height"]
        assert nav["height"] < 50
    else:
        assert nav["y"] >= search["y"] + search["height"]


def test_the_keyboard_reaches_the_content(window: Browser, site: str) -> None:
    """The first key leads to a visible link that skips the header."""
    window.get(f"{site}/changes")
    window.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    link = window.switch_to.active_element
    assert link.text == "Skip to the content"
    assert link.rect["y"] >= 0
    assert link.value_of_css_property("outline-style") == "solid"
    link.send_keys(Keys.ENTER)
    assert window.switch_to.active_element.tag_name == "main"
    window.switch_to.active_element.send_keys(Keys.TAB)
    inside = "return document.querySelector('main').contains(document.activeElement)"
    assert window.execute_script(inside)


def test_a_row_shows_everything(
    window: Browser, client: httpx.Client, site: str, served: Path
) -> None:
    """A row's page cuts nothing, and indents JSON whose texts stay texts."""
    with closing(sqlite3.connect(served)) as connection:
        image, digest = connection.execute(
            "SELECT id, digest FROM images WHERE manifest = ?", [MANIFEST]
        ).fetchone()
        change, fields = connection.execute(
            "SELECT id, fields FROM changes WHERE length(fields) > 300 LIMIT 1"
        ).fetchone()
        long = connection.execute("SELECT id FROM repositories WHERE length(name) > 200").fetchone()
    window.get(f"{site}/tagsync/images/{image}")
    assert digest in text_of(window)
    manifest = window.find_element(By.TAG_NAME, "pre").text
    assert manifest.splitlines()[1:4] == [
        '  "layers": [',
        "    {",
        f'      "digest": "sha256:{"5" * 64}",',
    ]
    assert r'"a": "<b>\u202e"' in manifest
    window.get(f"{site}/tagsync/changes/{change}")
    shown = "".join(window.find_element(By.TAG_NAME, "pre").text.split())
    assert shown == "".join(fields.split())
    window.get(f"{site}/tagsync/repositories/{long[0]}")
    assert LONG in text_of(window)
    assert "…" not in client.get(f"{site}/tagsync/repositories/{long[0]}").text


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("/nowhere", 404, "This page does not exist."),
        ("/tagsync/nowhere", 404, "No table, view or question has this name"),
        ("/tagsync/changes/999", 404, "The table has no row with this key."),
        ("/repository?name=a&name=b", 400, "parameter name is given more than once"),
        ("/changes?before=x", 400, "invalid parameter before: give the id of a change"),
        ("/repositories?q=nowhere", 200, "No repository name contains “nowhere”."),
        ("/changes?before=1", 200, "No earlier change is recorded."),
        ("/tagsync/tags?tag__exact=nothing", 200, "No row of tags matches."),
        ("/tagsync/moved-last-week?days=0", 200, "No tag moved in this time."),
    ],
)
def test_errors_and_empty_pages(
    client: httpx.Client, site: str, path: str, status: int, sentence: str
) -> None:
    """A page without an answer says why, in one sentence."""
    answer = client.get(f"{site}{path}")
    assert answer.status_code == status
    assert sentence in answer.text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("/?q=api", "/repositories?q=api"),
        ("/?q=api&after=swr", "/repositories?q=api&after=swr"),
        ("/search?q=swr/team/api", "/repository?name=swr%2Fteam%2Fapi"),
    ],
)
def test_earlier_addresses_lead_to_the_list(
    client: httpx.Client, site: str, old: str, new: str
) -> None:
    """Addresses of the list of repositories that people may have kept stay valid."""
    answer = client.get(f"{site}{old}")
    assert (answer.status_code, answer.headers["location"]) == (302, new)

"""The charts of the pages in a real browser: true places, keyboard, and hostile names."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.support.web import (
    API,
    HOSTILE,
    IMAGES,
    LAYERED,
    OTHER,
    Browser,
    emulate,
    leave,
    page_of,
    text_of,
)

pytestmark = pytest.mark.processes

REPOSITORY = page_of("repository", name=f"swr/{API}")
TAG = page_of("tag", repository=f"swr/{API}", tag="latest")

_PLACES = """
    const svg = document.querySelector('.chart svg').getBoundingClientRect();
    return [...document.querySelectorAll('.lane')].flatMap(lane =>
        [...lane.querySelectorAll('a[href^="/image"]')].map(link => {
            const rectangle = link.querySelector('rect:not(.window)');
            const box = rectangle ? rectangle.getBoundingClientRect() : null;
            return [lane.textContent.trim(), link.getAttribute('href'),
                    box && (box.left - svg.left) / svg.width,
                    box && (box.right - svg.left) / svg.width];
        }));
"""
"""For each interval its lane, its link, and its ends as shares of the plot area."""


@pytest.fixture
def window(browser: Browser) -> Iterator[Browser]:
    """The browser, whose window a test may change."""
    yield browser
    emulate(browser, 1280)


def rows_of(database: Path, sql: str, *parameters: str) -> list[Any]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql, parameters).fetchall()


def shown_range(browser: Browser) -> tuple[datetime, datetime]:
    """Return the range that the page says its chart shows."""
    times = browser.find_elements(By.CSS_SELECTOR, ".shown time")
    start, end = (datetime.fromisoformat(each.get_attribute("datetime") or "") for each in times)
    return start, end


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("page", [REPOSITORY, TAG])
@pytest.mark.parametrize("span", ["1d", "all"])
def test_intervals_are_where_the_record_says(
    window: Browser, site: str, served: Path, width: int, page: str, span: str
) -> None:
    """The ends of each interval are its first and its last known moment, to a pixel."""
    emulate(window, width)
    window.get(f"{site}{page}&range={span}")
    start, end = shown_range(window)
    tags = {"latest", "v1.0.0"} if page == REPOSITORY else {"latest"}
    expected = sorted(
        (digest, *((datetime.fromisoformat(at) - start) / (end - start) for at in (first, last)))
        for tag, digest, first, last in rows_of(
            served,
            "SELECT tag, digest, valid_from, still_at FROM tag_history WHERE repository = ?",
            f"swr/{API}",
        )
        if tag in tags
    )
    found = sorted(
        (link.partition("digest=")[2], left, right)
        for _, link, left, right in window.execute_script(_PLACES)
    )
    assert len(found) == len(expected) == len(tags) + 1
    plot = window.execute_script("return document.querySelector('.chart svg').clientWidth")
    for (digest, left, right), (wanted, first, last) in zip(found, expected, strict=True):
        assert digest == wanted
        # An interval without any length is a pixel wide, and stays in the plot area.
        assert left == pytest.approx(first, abs=2 / plot)
        assert right == pytest.approx(max(last, first), abs=2 / plot)


def test_coverage_is_where_the_record_says(window: Browser, site: str, served: Path) -> None:
    """The first block that is watched is that of the first poll."""
    emulate(window, 1280)
    window.get(f"{site}/coverage?range=1d&q={API}")
    start, end = shown_range(window)
    ((first,),) = rows_of(
        served,
        "SELECT min(first_at) FROM observations WHERE repository_id ="
        " (SELECT id FROM repositories WHERE name = ?)",
        API,
    )
    left = window.execute_script(
        "const svg = document.querySelector('.chart svg').getBoundingClientRect();"
        "const boxes = [...document.querySelectorAll('.strip rect')].filter("
        "  each => !(each.getAttribute('fill') || '').includes('unwatched'));"
        "return Math.min(...boxes.map(each => each.getBoundingClientRect().left - svg.left))"
        " / svg.width"
    )
    place = (datetime.fromisoformat(first) - start) / (end - start)
    # A block is a 120th of the plot area.
    assert place - 1 / 120 <= left <= place + 0.002


def test_days_have_the_changes_of_the_record(window: Browser, site: str, served: Path) -> None:
    """There are 30 days, equally wide, and the last ones are named with their changes."""
    emulate(window, 1280)
    window.get(site)
    days = window.execute_script(
        "const svg = document.querySelector('#days').closest('section').querySelector('svg');"
        "const whole = svg.getBoundingClientRect();"
        "return [...svg.querySelectorAll('.day')].map(day => {"
        "  const box = day.querySelector('rect').getBoundingClientRect();"
        "  return [(box.left - whole.left) / whole.width, box.width / whole.width,"
        "          day.querySelector('title').textContent, day.getAttribute('href')]})"
    )
    assert [left for left, *_ in days] == pytest.approx([n / 30 for n in range(30)], abs=0.002)
    assert {round(width, 3) for _, width, *_ in days} == {0.033}
    for day, moved in rows_of(served, "SELECT day, sum(moved) FROM daily_changes GROUP BY day"):
        ((title, href),) = [each[2:] for each in days if each[2].startswith(day)]
        assert (f"{moved} moved" in title) == bool(moved)
        assert href == f"/changes?day={day}"


def test_layers_are_as_long_as_they_are_large(window: Browser, site: str) -> None:
    """The bar of each layer has the share of the largest one, and links to its images."""
    emulate(window, 1280)
    window.get(f"{site}/image?digest={LAYERED.digest}")
    widths = window.execute_script(
        "const width = document.querySelector('.chart svg').getBoundingClientRect().width;"
        "return [...document.querySelectorAll('.chart rect.layer')].map("
        "  each => each.getBoundingClientRect().width / width)"
    )
    assert widths == pytest.approx([1, 0.25, 0], abs=0.002)
    assert "in 1 other image" in text_of(window)
    shared = window.find_element(By.CSS_SELECTOR, "[aria-labelledby=shared]")
    assert OTHER.digest.removeprefix("sha256:")[:12] in shared.text


def test_an_image_knows_its_tags_and_its_index(client: httpx.Client, site: str) -> None:
    """The page names the index that contains the image, and the tags that lead to either."""
    page = client.get(f"{site}/image?digest={LAYERED.digest}").text
    for tag in ("index", "layered"):
        assert page_of("tag", repository=f"swr/{IMAGES}", tag=tag).replace("&", "&amp;") in page
    assert "the index" in page
    assert "verified" in page


@pytest.mark.parametrize("page", ["/", "/coverage", REPOSITORY, f"/image?digest={LAYERED.digest}"])
def test_the_keyboard_reaches_the_links_of_a_chart(window: Browser, site: str, page: str) -> None:
    """The tab key stops at each name in a chart, visibly, and the enter key follows it."""
    emulate(window, 1280)
    window.get(f"{site}{page}")
    wanted = {
        link.get_attribute("href")
        for link in window.find_elements(By.CSS_SELECTOR, ".chart a:not([tabindex='-1'])")
    }
    assert wanted
    reached: set[str | None] = set()
    for _ in range(120):
        window.switch_to.active_element.send_keys(Keys.TAB)
        active = window.switch_to.active_element
        if window.execute_script("return arguments[0].closest('.chart')", active):
            assert active.value_of_css_property("outline-style") == "solid"
            reached.add(active.get_attribute("href"))
        if reached == wanted:
            break
    assert reached == wanted
    leave(window, lambda: window.switch_to.active_element.send_keys(Keys.ENTER))
    assert window.find_element(By.TAG_NAME, "h1").text


def test_every_link_of_the_lanes_is_also_in_the_table(window: Browser, site: str) -> None:
    """Who cannot point at an interval finds its image and its deletion in the table."""
    window.get(f"{site}{REPOSITORY}")
    inside, below = window.execute_script(
        "const links = selector => [...document.querySelectorAll(selector + ' a')].map("
        "  link => link.getAttribute('href'));"
        "return [links('.chart'), links('section[aria-labelledby=tags-in-time] table')]"
    )
    assert set(inside) == set(below)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_of_charts_have_contrast(window: Browser, site: str, scheme: str) -> None:
    """Names, times and notes have a contrast of at least 4.5:1 with the page behind them."""
    emulate(window, 1280, scheme)
    for page in ("/", "/coverage", REPOSITORY):
        window.get(f"{site}{page}")
        ground, colours = window.execute_script(
            "return [getComputedStyle(document.body).backgroundColor,"
            " [...document.querySelectorAll('.drawing text')].filter("
            "   text => !text.closest('.digits, .values')).map("
            "   text => getComputedStyle(text).fill)]"
        )
        assert colours
        assert min(contrast(colour, ground) for colour in set(colours)) >= 4.5


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours as WCAG defines it."""
    lights = sorted(map(luminance, (one, other)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in colour.strip("rgba()").split(",")[:3]]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_hostile_names_are_text_in_a_chart(
    window: Browser, site: str, hostile: tuple[str, ...]
) -> None:
    """A lane shows the beginning of the tag's name, and its tooltip the whole one."""
    window.get(f"{site}{page_of('repository', name=f'swr/{HOSTILE}')}")
    titles = window.execute_script(
        "return [...document.querySelectorAll('.chart title')].map(each => each.textContent)"
    )
    for name in (hostile[0], hostile[6], r"v1\u202egnp"):
        assert any(name in title for title in titles), name
    assert window.find_elements(By.CSS_SELECTOR, ".chart script") == []


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("/coverage?range=2d", 400, "invalid parameter range: give one of 1d, 7d, 30d"),
        ("/coverage?until=later", 400, "invalid parameter until: give a time such as"),
        ("/coverage?until=2999-01-01", 400, "is in the future"),
        ("/coverage?until=0001-01-01T00:00:00%2B14:00", 400, "invalid parameter until"),
        ("/coverage?until=0001-01-01&range=1y", 400, "invalid parameter until"),
        ("/coverage?page=x", 400, "invalid parameter page: give the number of a page"),
        ("/coverage?page=99", 200, "This page has no repositories"),
        ("/coverage?q=nowhere", 200, "has a name that contains “nowhere”"),
        (f"{REPOSITORY}&lanes=x", 400, "invalid parameter lanes: give the id of a change"),
        (f"{REPOSITORY}&lanes=1", 200, "No tags in this range"),
        (f"{REPOSITORY}&until=2000-01-01", 200, "No tags in this range"),
        ("/image?digest=sha256:00", 404, "no image &#39;sha256:00&#39; is recorded"),
        ("/image", 404, "is recorded: give the whole digest"),
        ("/tag", 400, "parameter repository or tag is missing: give both"),
        ("/tag?repository=swr%2Fteam%2Fapi&at=yesterday", 400, "repository or tag is missing"),
        ("/changes?day=x", 400, "invalid parameter day: give a date"),
        ("/changes?day=9999-12-31", 400, "invalid parameter day"),
    ],
)
def test_wrong_parameters_and_empty_charts(
    client: httpx.Client, site: str, path: str, status: int, sentence: str
) -> None:
    """A page without an answer says why, in one sentence."""
    answer = client.get(f"{site}{path}")
    assert answer.status_code == status
    assert sentence in answer.text


def test_a_day_leads_to_its_changes(client: httpx.Client, site: str, served: Path) -> None:
    """The link of a day leads to the changes until its end, the newest first."""
    ((day, last),) = rows_of(
        served,
        "SELECT substr(observed_at, 1, 10), max(id) FROM changes GROUP BY 1 ORDER BY 1 LIMIT 1",
    )
    answer = client.get(f"{site}/changes?day={day}")
    following = rows_of(served, "SELECT min(id) FROM changes WHERE id > ?", last)[0][0]
    expected = "/changes" if following is None else f"/changes?before={following}"
    assert (answer.status_code, answer.headers["location"]) == (302, expected)


def test_the_stylesheet_of_drawings_is_an_asset(client: httpx.Client, site: str) -> None:
    """The colours of drawings come from this origin, as the strict policy demands."""
    answer = client.get(f"{site}/assets/drawing.css")
    assert answer.headers["content-type"] == "text/css; charset=utf-8"
    assert ".drawing" in answer.text
    assert "style-src 'self'" in answer.headers["content-security-policy"]
    assert 'href="/assets/drawing.css"' in client.get(site).text

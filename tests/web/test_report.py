"""The report: its links on the pages, and the file in a real browser, offline."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
from selenium.webdriver.common.by import By

from tagsync.audit.selection import exact_pattern
from tagsync.database.store import Store
from tagsync.models import Repository
from tagsync.web.pages.report import MOST_CHANGES
from tests.support.clock import FakeClock
from tests.support.commands import command, tagsync
from tests.support.registries import poll_any_names
from tests.support.reports import Page
from tests.support.web import (
    API,
    HOSTILE,
    LONG,
    LONG_TAG,
    Browser,
    Trap,
    accessibility_faults,
    configure,
    emulate,
    overflowing,
    page_of,
    serving,
    text_of,
)

pytestmark = pytest.mark.processes

END = "2026-09-01T00:00:00Z"

PATTERNS = {
    "tag": f"swr/{API}:latest",
    "repository": f"swr/{API}",
    "hostile": f"swr/{HOSTILE}",
    "long": f"swr/{LONG}:{LONG_TAG}",
    "everything": "*",
}


@pytest.fixture(scope="session")
def reports(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report of each kind, as files in a folder of their own."""
    target = tmp_path_factory.mktemp("reports")
    for name, pattern in PATTERNS.items():
        path = target / f"{name}.html"
        finished = tagsync(
            *("--config", "tagsync-demo/config.toml", "report", pattern, "--verify", "-o", path),
            cwd=folder,
        )
        assert path.exists(), finished
    return {name: target / f"{name}.html" for name in PATTERNS}


@pytest.fixture(params=PATTERNS)
def report(request: pytest.FixtureRequest, reports: dict[str, Path]) -> str:
    """The address of a report of each kind."""
    return reports[request.param].as_uri()


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(report: str, width: int, browser: Browser) -> None:
    """At each width, everything is within the window, but code that scrolls by keyboard."""
    emulate(browser, width)
    browser.get(report)
    assert overflowing(browser) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_report_is_accessible(report: str, width: int, scheme: str, browser: Browser) -> None:
    """axe-core finds no serious fault in either colour scheme."""
    emulate(browser, width, scheme)
    browser.get(report)
    assert accessibility_faults(browser) == []


def test_a_report_opens_offline_and_runs_nothing(report: str, browser: Browser, trap: Trap) -> None:
    """The page has its style and its drawings, loads no other file, and visits nothing."""
    emulate(browser, 1280)
    browser.get(report)
    loaded = browser.execute_script("return performance.getEntriesByType('resource').length")
    assert (loaded, browser.title.endswith(": tagsync report"), trap.visits) == (0, True, 0)
    body = browser.find_element(By.TAG_NAME, "body")
    assert body.value_of_css_property("margin-top") == "0px"
    drawings = browser.find_elements(By.CSS_SELECTOR, "svg.drawing")
    assert drawings
    assert all(drawing.size["height"] > 50 for drawing in drawings)
    assert browser.find_elements(By.CSS_SELECTOR, "a, script, img, link, iframe, form") == []


def test_hostile_names_are_shown_as_they_are(
    reports: dict[str, Path], hostile: Sequence[str], browser: Browser
) -> None:
    """The text of the page has each name of a tag."""
    emulate(browser, 1280)
    browser.get(reports["hostile"].as_uri())
    shown = text_of(browser)
    assert all(name.replace("\u202e", "\\u202e") in shown for name in hostile)


def test_a_report_prints_on_sheets_of_a4(reports: dict[str, Path], browser: Browser) -> None:
    """Printed, the report has whole sheets, and its tables are tables."""
    browser.get(reports["repository"].as_uri())
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    assert len(printed["data"]) > 1000
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        head = browser.find_element(By.CSS_SELECTOR, "table thead")
        assert head.value_of_css_property("display") == "table-header-group"
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_a_sheet_cuts_nothing(reports: dict[str, Path], browser: Browser) -> None:
    """On the width of A4, marks at the end of a chart and short names of tags are whole."""
    emulate(browser, 700)
    browser.get(reports["everything"].as_uri())
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        width = browser.execute_script("return document.documentElement.clientWidth")
        crosses = browser.execute_script(
            "return [...document.querySelectorAll('.cross')].map("
            "  mark => mark.getBoundingClientRect().right)"
        )
        (overflow,) = {
            drawing.value_of_css_property("overflow-x")
            for drawing in browser.find_elements(By.CSS_SELECTOR, "svg.drawing")
        }
        lines = browser.execute_script(
            "return [...document.querySelectorAll('td:first-child code')].filter("
            "  name => name.textContent === 'swr/team/api:latest').map("
            "  name => name.getClientRects().length)"
        )
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
        emulate(browser, 1280)
    assert crosses
    assert max(crosses) <= width
    assert overflow == "visible"
    assert lines
    assert set(lines) == {1}


@pytest.mark.parametrize(
    ("page", "pattern"),
    [
        (page_of("repository", name=f"swr/{API}"), f"swr/{API}"),
        (page_of("tag", repository=f"swr/{API}", tag="latest"), f"swr/{API}:latest"),
    ],
)
def test_pages_link_to_their_report(
    page: str, pattern: str, site: str, client: httpx.Client, folder: Path, tmp_path: Path
) -> None:
    """The link downloads the file of the command, but for the time of making."""
    links = Page(client.get(site + page).text).attributes("href")
    link, *others = [link for link in links if link.startswith("/report?")]
    assert others == [f"{link}&run=0"] * (":" not in pattern)
    answer = client.get(site + link)
    name = re.sub("[/:]", "-", pattern)
    assert answer.headers["content-disposition"] == f'attachment; filename="report-{name}.html"'
    path = tmp_path / "report.html"
    tagsync("--config", "tagsync-demo/config.toml", "report", pattern, "-o", path, cwd=folder)
    written, downloaded = (
        re.sub("<dd>[^<]* UTC, by tagsync", "", text) for text in (path.read_text(), answer.text)
    )
    assert downloaded == written


def test_each_hostile_tag_has_its_own_report(
    hostile: Sequence[str], site: str, client: httpx.Client
) -> None:
    """A name with signs of globs and URLs selects exactly its tag."""
    for name in hostile:
        parameters = {"pattern": exact_pattern(f"swr/{HOSTILE}", name), "format": "json"}
        answer = client.get(f"{site}/report", params=parameters)
        assert [each["tag"] for each in json.loads(answer.text)["answers"]] == [name]
        assert re.fullmatch(
            r'attachment; filename="[A-Za-z0-9._-]+"', answer.headers["content-disposition"]
        )


def test_the_form_of_a_report(site: str, browser: Browser) -> None:
    """The form says how much a report reads, and its button downloads it with what was chosen."""
    for width in (390, 1280):
        emulate(browser, width)
        browser.get(f"{site}{page_of('report', pattern=f'swr/{API}', format='md', run='0')}")
        assert overflowing(browser) == []
    assert accessibility_faults(browser) == []
    assert "changes to read for this report." in text_of(browser)
    assert f"tagsync report swr/{API} -o report.html" in text_of(browser)
    form = browser.find_element(By.CSS_SELECTOR, "main form")
    fields = form.find_elements(By.CSS_SELECTOR, "[name]")
    chosen = {str(each.get_attribute("name")): each.get_attribute("value") for each in fields}
    assert chosen == {"pattern": f"swr/{API}", "run": "1", "format": "md", "from": "", "to": ""}


@pytest.mark.parametrize(("tags", "at_once"), [(MOST_CHANGES, True), (MOST_CHANGES + 1, False)])
def test_a_long_report_is_made_only_on_its_button(
    tags: int, at_once: bool, tmp_path: Path, client: httpx.Client
) -> None:
    """The page of a report with many changes says how long it takes, and the button makes it."""
    configure(tmp_path)
    names = {f"v{number}": "image" for number in range(tags)}
    with Store.open(tmp_path / "tagsync.db") as store:
        poll_any_names(store, FakeClock(), Repository("swr", API), names)
    options = ("--config", "config.toml", "web", "--port", "0")
    with serving(command(*options), tmp_path) as (address, _):
        asked, made = (
            client.get(
                f"{address}/report",
                params={"pattern": f"swr/{API}", "format": "json", "to": END, "run": run},
            )
            for run in ("", "1")
        )
    assert json.loads(made.text)["question"]["to"] == END.replace("Z", ".000Z")
    assert ("content-disposition" in asked.headers) == at_once
    sentence = f"{tags:,} changes to read for this report, which takes about 1 second."
    assert (sentence in asked.text) == (not at_once)
    assert (f"--to {END.replace('Z', '.000Z')}" in asked.text) == (not at_once)


@pytest.mark.parametrize(
    ("parameters", "status", "sentence"),
    [
        ({}, 400, "parameter pattern is missing"),
        ({"pattern": "*", "format": "pdf"}, 400, "give html, md, json"),
        ({"pattern": "*", "from": "noon"}, 400, "invalid time"),
        ({"pattern": "*", "to": "2999-01-01"}, 400, "is in the future"),
        ({"pattern": "swr/typo"}, 404, "no repository matches"),
        ({"pattern": f"swr/{API}:typo"}, 404, "was never recorded"),
    ],
)
def test_a_wrong_address_is_answered_by_a_sentence(
    parameters: dict[str, str], status: int, sentence: str, site: str, client: httpx.Client
) -> None:
    """A wrong parameter is answered by a page with one sentence."""
    answer = client.get(f"{site}/report", params=parameters)
    assert (answer.status_code, sentence in answer.text) == (status, True)
    assert client.post(f"{site}/report?pattern=*").status_code == 405

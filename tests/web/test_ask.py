"""The pages that answer questions, over HTTP and in a browser: search, moments, differences."""

import html
import json
import re
import sqlite3
import subprocess
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from selenium.webdriver.common.by import By

from tests.support.commands import command, environment
from tests.support.web import (
    API,
    HOSTILE,
    Browser,
    Trap,
    accessibility_faults,
    cells,
    emulate,
    follow,
    overflowing,
    page_of,
    text_of,
)

pytestmark = pytest.mark.processes

FIRST = f"sha256:{sha256(b'first').hexdigest()}"
"""The digest to which hostile tags pointed first."""

PATHS = (
    "/search?q=",
    "/?at=",
    "/difference?from=",
    "/difference?from=2h&pattern=",
    "/layer?digest=",
)
TEXTS = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "' OR '1'='1",
    "1; DROP TABLE tags",
    "\0\x1b[31m\u202e",
    "{{ 7 * 7 }}",
    "%00%ff",
    "*" * 200,
    "[",
    "@@::/:@",
    "docker pull",
    "sha256:",
    "repository: tag: image:",
    "9" * 400,
    "x" * 10_000,
    "a:" * 5_000,
)


def answer_of(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    """Return the rows that a command prints as JSON."""
    line = command("--config", "tagsync-demo/config.toml", *arguments, "--format", "json")
    finished = subprocess.run(
        line, cwd=folder, env=environment(), capture_output=True, text=True, timeout=30, check=True
    )
    rows: list[dict[str, Any]] = json.loads(finished.stdout)
    return rows


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:12].encode().hex())
def test_hostile_questions_stay_text(client: httpx.Client, site: str, path: str, text: str) -> None:
    """No text of a question is run, shown as HTML, or a bug: it is an answer or one sentence."""
    answer = client.get(site + path + httpx.QueryParams({"x": text}).__str__()[2:])
    assert answer.status_code in {200, 302, 400, 404}, answer.text
    assert "<script>alert" not in answer.text
    assert "<img src=x" not in answer.text
    assert "bug in tagsync" not in answer.text
    assert not {"\0", "\x1b", "\u202e"} & set(answer.text)


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/?at=soon", "invalid time 'soon': write it as 2026-05-03"),
        ("/?at=2999-01-01", "the time '2999-01-01' is in the future"),
        ("/search?q=x&at=2999-01-01", "the time '2999-01-01' is in the future"),
        (page_of("repository", name=f"swr/{API}", at="5 M"), "invalid time '5 M'"),
        (page_of("tag", repository=f"swr/{API}", tag="latest", at="x"), "invalid time 'x'"),
        ("/difference?from=1h&to=2h", "'2h' is before '1h': give the earlier time first"),
        ("/difference?to=2h", "the earlier moment is missing"),
        ("/difference?from=1h&pattern=a:", "invalid pattern 'a:'"),
        ("/gaps?range=2w", "invalid parameter range: give one of 1d, 7d, 30d, 90d, 1y, all"),
        ("/gaps?page=0", "invalid parameter page or minutes"),
        ("/gaps?minutes=-1", "invalid parameter minutes"),
        ("/layer", "the digest of a layer is missing"),
        ("/search?q=" + "x" * 1001, "longer than 1,000 characters"),
        ("/search?q=a&q=b", "parameter q is given more than once"),
    ],
)
def test_a_wrong_parameter_is_one_sentence(
    client: httpx.Client, site: str, path: str, sentence: str
) -> None:
    """A question that cannot be answered says what to write instead."""
    answer = client.get(site + path)
    assert answer.status_code == 400
    assert sentence in html.unescape(answer.text)


def test_a_moment_is_answered_as_by_the_command(
    client: httpx.Client, site: str, folder: Path, served: Path
) -> None:
    """Each state of ``tags --at`` is on the page of the repository, with its certainty."""
    del served
    for at in ("10h", "9h", "5h", "2h"):
        rows = answer_of(folder, "tags", f"swr/{API}", "--at", at)
        page = client.get(site + page_of("repository", name=f"swr/{API}", at=at)).text
        assert "As of" in page
        assert "Back to now" in page
        for row in rows:
            if row["tag"]:
                assert row["tag"] in page
                assert (row["digest"] or "absent") in page
            assert row["certainty"] in page or row["certainty"].capitalize() in page


def test_a_digest_is_answered_as_by_the_command(browser: Browser, site: str, folder: Path) -> None:
    """The search for a digest shows each interval of ``find``, hostile names as text."""
    rows = answer_of(folder, "find", FIRST)
    browser.get(f"{site}/")
    box = browser.find_element(By.CSS_SELECTOR, "header [name=q]")
    box.send_keys(FIRST[:20])
    follow(browser, By.CSS_SELECTOR, "header button")
    shown = [(row[0], row[1], row[4].startswith("still")) for row in cells(browser)]
    # The tag of one hostile name has a character that pages escape.
    assert len(shown) == len(rows)
    for row, (repository, tag, still) in zip(rows, shown, strict=True):
        assert (repository, still) == (row["repository"], row["valid_to"] is None)
        assert tag == row["tag"] or "\u202e" in row["tag"]
    assert browser.title.startswith("Search")


@pytest.mark.parametrize(
    "text",
    [
        f"swr/{API}:latest",
        f"docker pull 127.0.0.1:9/{API}:latest",
        f"image: x.example/{API}:latest",
    ],
)
def test_a_reference_leads_to_the_tag(client: httpx.Client, site: str, text: str) -> None:
    """The full name of a tag, or the reference of an image, redirects to the page of the tag."""
    answer = client.get(site + page_of("search", q=text, at="2h"))
    target = page_of("tag", repository=f"swr/{API}", tag="latest")
    assert answer.status_code == 302
    assert answer.headers["location"].startswith(f"{target}&at=")
    assert client.get(site + answer.headers["location"]).status_code == 200


def test_a_hostile_tag_is_found_by_its_reference(
    browser: Browser, site: str, hostile: tuple[str, ...], trap: Trap
) -> None:
    """The page of a tag as of a moment shows a hostile name as text."""
    for tag in hostile:
        browser.get(site + page_of("tag", repository=f"swr/{HOSTILE}", tag=tag, at="1h"))
        assert tag.replace("\u202e", "\\u202e") in text_of(browser)
    assert trap.visits == 0


def test_a_difference_is_answered_as_by_the_command(
    browser: Browser, site: str, folder: Path
) -> None:
    """The form shows each row of ``diff`` with its sign, and the totals."""
    first = answer_of(folder, "coverage", "--summary", f"swr/{API}")[0]["from"]
    rows = answer_of(folder, "diff", f"swr/{API}", "--from", first, "--to", "1h")
    browser.get(f"{site}/difference")
    for name, text in (("pattern", f"swr/{API}"), ("from", first), ("to", "1h")):
        browser.find_element(By.CSS_SELECTOR, f"main [name={name}]").send_keys(text)
    follow(browser, By.CSS_SELECTOR, "main button")
    kinds = {"added": "+ added", "updated": "~ moved", "deleted": "\u2212 deleted"}
    assert [row[:2] for row in cells(browser)] == [
        [kinds[row["kind"]], row["tag"]] for row in rows if row["tag"]
    ]
    assert "2 differences in 1 repository" in text_of(browser)


def test_a_moment_is_chosen_with_the_form(browser: Browser, site: str) -> None:
    """The forms on the front page, a repository and a tag lead to the moment, and back."""
    for path in ("/", page_of("repository", name=f"swr/{API}")):
        browser.get(site + path)
        browser.find_element(By.CSS_SELECTOR, "main [name=at]").send_keys("2h")
        follow(browser, By.CSS_SELECTOR, "main .as-of button")
        assert "As of 20" in browser.find_element(By.CSS_SELECTOR, "[role=status]").text
        follow(browser, By.LINK_TEXT, "Back to now")
        assert browser.current_url == site + path


def test_gaps_are_those_of_the_command(browser: Browser, site: str, folder: Path) -> None:
    """The page of gaps has the longest one of each repository, the longest first."""
    summary = answer_of(folder, "coverage", "--summary")
    longest = sorted(row["longest_gap_from"] for row in summary if row["longest_gap_from"])
    browser.get(f"{site}/gaps?range=all")
    starts = {row[2] for row in cells(browser)}
    assert {start[:19].replace("T", " ") for start in longest} <= starts


def test_the_form_of_a_question_explains_itself(browser: Browser, site: str) -> None:
    """Each parameter has a label, a hint, a type, and names of repositories to choose from."""
    browser.get(f"{site}/tagsync/holes")
    minutes = browser.find_element(By.NAME, "minutes")
    assert minutes.get_attribute("type") == "number"
    hint = browser.find_element(By.ID, minutes.get_attribute("aria-describedby") or "")
    assert "Empty: 10." in hint.text
    options = browser.find_elements(By.CSS_SELECTOR, "datalist option")
    assert f"swr/{API}" in [option.get_attribute("value") for option in options]
    browser.find_element(By.NAME, "repository").send_keys("swr/nowhere")
    follow(browser, By.CSS_SELECTOR, "main button")
    assert "There is no such gap." in text_of(browser)


def test_a_digest_of_a_moment_leads_to_its_image(client: httpx.Client, site: str) -> None:
    """What a tag pointed to then is a link, as it is on the page of the tag."""
    answer = client.get(site + page_of("tag", repository=f"swr/{API}", tag="latest", at="9h40m"))
    (digest,) = re.findall(r'<a href="/image\?digest=([^"]+)"><code class="whole">\1<', answer.text)
    assert client.get(f"{site}/image", params={"digest": digest}).status_code == 200


def test_an_image_as_of_a_moment_is_a_search(client: httpx.Client, site: str) -> None:
    """The page of an image passes a moment on to the search, which answers what led to it then."""
    digest = f"sha256:{'1' * 64}"
    answer = client.get(f"{site}/image?digest={digest}&at=2h")
    assert answer.status_code == httpx.codes.FOUND
    assert answer.headers["location"] == f"/search?q=sha256%3A{'1' * 64}&at=2h"


def test_who_has_a_layer(browser: Browser, site: str, folder: Path, served: Path) -> None:
    """The page of a layer shows its images and the tags of ``find``, within a narrow window."""
    with closing(sqlite3.connect(served)) as connection:
        (layer,) = connection.execute(
            "SELECT layer_digest FROM image_layers JOIN images USING (digest) WHERE verified"
        ).fetchone()
    rows = answer_of(folder, "find", layer)
    browser.get(f"{site}/search?q={layer}")
    follow(browser, By.LINK_TEXT, "Images with this layer")
    tags = {(row[0], row[1], row[4] == "still") for row in cells(browser)}
    assert tags == {(row["repository"], row["tag"], row["valid_to"] is None) for row in rows}
    images = {row[0] for row in cells(browser, 1)}
    assert images == {row["digest"] for row in rows if row["platform"] is None}
    for width in (390, 600, 1280):
        emulate(browser, width)
        assert overflowing(browser) == []
    assert accessibility_faults(browser) == []

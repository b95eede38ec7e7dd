"""``tagsync web``: its pages in a real browser, and what the pages must not allow."""

import csv
import io
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from html import unescape
from html.parser import HTMLParser
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copytree
from threading import Thread
from time import sleep
from typing import Any

import httpx
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tagsync.audit.questions import QUESTIONS
from tagsync.database.store import Store
from tagsync.errors import ConfigError, UnusableDatabase
from tagsync.web import serve
from tagsync.web.descriptions import TABLES
from tagsync.web.queries import HISTORY
from tests.support.commands import command, environment
from tests.support.waiting import eventually
from tests.support.web import (
    API,
    FILES,
    HOSTILE,
    LONG,
    Browser,
    Trap,
    cells,
    configure,
    follow,
    page_of,
    refused,
    serving,
    text_of,
)

pytestmark = pytest.mark.processes

PAGES = ("/", "/questions", "/tagsync")


# --- the pages -----------------------------------------------------------------------------------


def test_from_the_front_page_to_a_tag_s_history(browser: Browser, site: str) -> None:
    """The front page shows freshness and changes, and links to a timeline and to a history."""
    browser.get(site)
    assert "Newest complete listing" in text_of(browser)
    assert "1 failing" in text_of(browser)
    latest = cells(browser)
    assert ["swr/team/api", "v1.0.0", "deleted"] in [row[2:5] for row in latest]
    assert next(row[1] for row in latest if row[3] == "v1.0.0") == "3 h"

    follow(browser, By.LINK_TEXT, "swr/team/api")
    assert browser.find_element(By.TAG_NAME, "h1").text == "swr/team/api"
    timeline = [
        (row[-3] if len(row) == 5 else "", row[-2] if len(row) == 5 else row[2])
        for row in cells(browser, 1)
        if "until now" not in row[-1]  # ten minutes after the last poll
    ]
    assert timeline[1] == ("v1.0.0", "deleted")
    assert timeline[3] == ("latest", "moved")
    assert timeline[0][1].endswith("no polls")
    assert timeline[2][1].endswith("no polls")
    assert timeline[4][1].startswith("First listing: 2 tags.")

    follow(browser, By.LINK_TEXT, "latest")
    assert browser.find_element(By.TAG_NAME, "h1").text == "swr/team/api:latest"
    second, first = cells(browser)
    assert second[1:2] + first[1:2] == [first[0].removeprefix("sha256:")[:12], ""]
    assert second[2].startswith("after ")
    assert second[3] == "still"
    assert first[2].startswith("existed when first listed")
    assert second[0] in browser.find_element(By.TAG_NAME, "main").text.split("Digests")[0]
    assert [row[3] for row in cells(browser, 1)] == ["moved", "added"]
    assert [row[3] for row in cells(browser, 2) if row[1] != "still"] == ["no polls"] * 2


def test_a_saved_question_is_answered(browser: Browser, site: str) -> None:
    """A question shows its answer and its SQL, and its parameters change the answer."""
    browser.get(f"{site}/questions")
    follow(browser, By.LINK_TEXT, "What moved last week?")
    assert ["swr/team/api", "latest"] in [row[:2] for row in cells(browser)]
    target = browser.find_element(By.LINK_TEXT, "latest").get_attribute("href")
    assert target == f"{site}{page_of('tag', repository='swr/team/api', tag='latest')}"
    days = browser.find_element(By.NAME, "days")
    assert days.get_attribute("placeholder") == "7"
    days.send_keys("0")
    follow(browser, By.CSS_SELECTOR, "main button")
    assert "No tag moved in this time." in text_of(browser)
    browser.find_element(By.TAG_NAME, "summary").click()
    (moved,) = (question for question in QUESTIONS if question.slug == "moved-last-week")
    assert browser.find_element(By.TAG_NAME, "pre").text == moved.sql


@pytest.mark.parametrize(
    ("path", "shown", "hidden"),
    [
        ("tags-with-layer", "Give a value for “Layer” to get the answer.", "No tag points to"),
        ("same-image-elsewhere?count=3", "Give a value for “Repository”", "No such image"),
        ("same-image-elsewhere?repository=*", "point now", "Give a value"),
        ("rollbacks?days=60", 'href="/tagsync/rollbacks?days=0&amp;moves=0"', "Give a value"),
        ("rollbacks?days=60&moves=1", "1 moves were examined, back to", "Give a value"),
        ("rollbacks?days=0&moves=0", "moves were examined, back to", "Examine the whole"),
    ],
)
def test_a_question_says_what_it_needs_and_what_it_read(
    client: httpx.Client, site: str, path: str, shown: str, hidden: str
) -> None:
    """A page asks for a value that it needs, and says how much of the record it examined."""
    answer = client.get(f"{site}/tagsync/{path}")
    assert answer.status_code == 200
    assert shown in answer.text
    assert hidden not in answer.text


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.slug)
def test_every_question_is_answered(client: httpx.Client, site: str, question: Any) -> None:
    """Each documented question has an answer in the browser, as a page and as CSV."""
    page = client.get(f"{site}/tagsync/{question.slug}")
    assert page.status_code == 200
    assert question.title.replace("'", "&#39;") in page.text
    assert client.get(f"{site}/tagsync/{question.slug}.csv").status_code == 200


def test_finding_a_repository(client: httpx.Client, browser: Browser, site: str) -> None:
    """The list of repositories can be searched, and says if none matches."""
    browser.get(f"{site}/repositories")
    long = f"swr/{LONG}"
    assert [row[0] for row in cells(browser)] == [
        "swr/team/api",
        "swr/team/hostile",
        "swr/team/images",
        long,
    ]
    for where in ("main", "header"):
        browser.get(f"{site}/repositories")
        browser.find_element(By.CSS_SELECTOR, f"{where} [name=q]").send_keys("API")
        follow(browser, By.CSS_SELECTOR, f"{where} button")
        assert [row[0] for row in cells(browser)] == ["swr/team/api"]
    assert (
        "No repository name contains “nowhere”" in client.get(f"{site}/repositories?q=nowhere").text
    )


@pytest.mark.parametrize(
    ("watch", "expected"),
    [
        ("", "The configuration watches none of these repositories"),
        ('repositories = ["team/hostile"]\ninterval = "1h"', "Every watched repository is stale"),
        (
            'repositories = ["team/hostile"]\ninterval = "1w"',
            '<small><span class="warn">1 failing</span></small>',
        ),
    ],
)
def test_stale_is_what_the_configuration_says(
    client: httpx.Client, served: Path, tmp_path: Path, watch: str, expected: str
) -> None:
    """The overview judges the record by the intervals of the configuration, if there are any."""
    config = configure(tmp_path, watch)
    config.write_text(config.read_text().replace("tagsync.db", str(served)))
    with serving(command("--config", config, "web", "--port", "0"), tmp_path) as (site, _):
        text = " ".join(client.get(site).text.split())
    assert expected in text
    assert ("stale:" in text) == (expected == "Every watched repository is stale")


def test_each_table_and_column_is_described(client: httpx.Client, served: Path, site: str) -> None:
    """Every table, view and column has a description, and nothing else has one."""
    with closing(sqlite3.connect(served)) as connection:
        found = {
            name: {row[1] for row in connection.execute(f"PRAGMA table_xinfo({name})")}
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type IN ('table', 'view')"
                " AND name NOT GLOB '*sqlite_*' AND name NOT GLOB 'image_search*'"
            )
        }
    assert {name: set(table["columns"]) for name, table in TABLES.items()} == found
    for name, table in TABLES.items():
        shown = client.get(f"{site}/tagsync/{name}").text
        assert table["description"].replace("'", "&#39;") in shown
        assert set(table.get("facets", ())) <= table["columns"].keys()
        facets = [f'id="facet-{facet}"' for facet in table.get("facets", ())]
        # Datasette leaves out a facet whose values it cannot count within a short time.
        eventually(partial(shows, client, f"{site}/tagsync/{name}", facets), 30)


def shows(client: httpx.Client, address: str, texts: Sequence[str]) -> bool:
    page = client.get(address).text
    return all(text in page for text in texts)


def test_every_link_of_a_row_leads_to_a_row(client: httpx.Client, site: str) -> None:
    """Links from a row to rows of other tables work."""
    links = {
        unescape(link)
        for name in TABLES
        for link in re.findall(
            r'<td[^>]*><a href="(/tagsync/[^"]+/[^"]+)"', client.get(f"{site}/tagsync/{name}").text
        )
    }
    assert {link.split("/")[2] for link in links} >= {"repositories", "changes", "images"}
    assert {link: client.get(f"{site}{link}").status_code for link in links} == dict.fromkeys(
        links, 200
    )


# --- what the pages must not allow ---------------------------------------------------------------


def test_a_hostile_tag_is_text_in_a_browser(
    browser: Browser, site: str, trap: Trap, hostile: Sequence[str]
) -> None:
    """No page runs or loads anything because of a tag's name; it shows the name as text."""
    pages = [
        "/",
        page_of("repository", name=f"swr/{HOSTILE}"),
        page_of("repository", name=f"swr/{HOSTILE}", range="1d"),
        "/coverage",
        page_of("coverage", q=hostile[0], registry=hostile[1]),
        page_of("image", digest=hostile[1]),
        *(page_of("tag", repository=f"swr/{HOSTILE}", tag=tag) for tag in hostile),
        "/tagsync/changes/3",
        "/tagsync/moved-last-week",
        page_of("tagsync/current_tags", tag__exact=hostile[1], _facet="tag"),
        page_of("tagsync", sql=f'SELECT tag AS "{hostile[3].replace(chr(34), "")}" FROM tags'),
        page_of("tagsync", sql=hostile[0]),
        page_of("repository", name=hostile[0]),
        page_of("", q=hostile[1]),
    ]
    for page in pages:
        browser.get(f"{site}{page}")
        assert browser.title.endswith("tagsync"), page
        active, sheets, targets = browser.execute_script(
            "const all = selector => [...document.querySelectorAll(selector)];"
            "return [all('script, img, svg:not(.chart > .drawing, .drawing *), iframe, object'"
            " ).length + all('.drawing *').filter(each => [...each.attributes].some("
            " attribute => /^on|^style$/.test(attribute.name))).length,"
            " all('link').map(link => link.href),"
            " all('a').map(link => new URL(link.getAttribute('href'), location).href)]"
        )
        assert active == 0, page
        assert {f"{site}/assets/tagsync.css"} <= set(sheets), page
        assert all(target.startswith(site) for target in (*sheets, *targets)), page
    assert trap.visits == 0

    browser.get(f"{site}{page_of('tag', repository=f'swr/{HOSTILE}', tag=hostile[1])}")
    assert browser.find_element(By.TAG_NAME, "h1").text == f"swr/{HOSTILE}:{hostile[1]}"
    browser.get(f"{site}/tagsync/current_tags")
    shown = text_of(browser).replace("\n", "")
    assert all(tag in shown for tag in (*hostile[1:5], "{{ 7 * 7 }}", r"v1\u202egnp"))


class Elements(HTMLParser):
    """The elements of a page, and the addresses that they name."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.addresses: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.addresses |= {
            value or "" for name, value in attrs if name in {"href", "src", "action"}
        }


def test_no_table_and_no_question_holds_more_than_text(client: httpx.Client, site: str) -> None:
    """On none of Datasette's own pages does a tag's name become an element or an address."""
    showing: set[str] = set()
    for name in (*TABLES, *(question.slug for question in QUESTIONS)):
        text = client.get(f"{site}/tagsync/{name}").text
        showing |= {name} if HOSTILE in text and "fetch(" in text else set()
        page = Elements(text)
        assert not page.names & {"script", "img", "svg", "iframe", "object"}, name
        assert not [attribute for attribute in page.attributes if attribute.startswith("on")], name
        for address in page.addresses:
            assert address.startswith(("/", "#", site)), (name, address)
    assert {"tags", "current_tags", "change_log", "moved-last-week", "deleted"} <= showing


def test_a_page_may_not_run_a_script_even_if_it_held_one(browser: Browser, site: str) -> None:
    """The browser refuses a script in our pages that it would run in other pages."""
    # A trap of its own, because it is visited in the end.
    with closing(Trap()) as trap:
        assert_scripts_are_refused(browser, site, trap)


def assert_scripts_are_refused(browser: Browser, site: str, trap: Trap) -> None:
    put_in = (
        "const script = document.createElement('script');"
        f"script.textContent = \"document.title='owned';fetch('{trap.url}')\";"
        "document.body.append(script);"
        f"const image = document.createElement('img'); image.src = '{trap.url}';"
        "document.body.append(image);"
    )
    for page in (*PAGES, "/tagsync/change_log", "/nowhere"):
        browser.get(f"{site}{page}")
        browser.execute_script(put_in)
        assert browser.title != "owned", page
    assert trap.visits == 0

    browser.get("data:text/html,<title>a page without our headers</title>")
    browser.execute_script(put_in)
    assert browser.title == "owned"
    assert trap.visited.wait(30)


def test_every_response_forbids_scripts(client: httpx.Client, site: str) -> None:
    """All responses have the headers that forbid scripts and frames."""
    for path in ("/", "/tagsync/tags", "/tagsync/tags.json", "/nowhere", "/assets/tagsync.css"):
        headers = client.get(f"{site}{path}").headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'; img-src 'self'")
        assert "script-src" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert "set-cookie" not in headers


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_only_get_and_head_are_answered(client: httpx.Client, site: str, method: str) -> None:
    """Other methods are refused, on our pages and on Datasette's."""
    for path in ("/", "/tagsync/tags", "/tagsync/moved-last-week", "/-/messages"):
        answer = client.request(method, f"{site}{path}")
        assert answer.status_code == 405, path


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM tags",
        "INSERT INTO tags (tag) VALUES ('x')",
        "WITH x AS (SELECT 1) DELETE FROM tags",
        "ATTACH 'other.db' AS other",
        "PRAGMA journal_mode = DELETE",
        "SELECT 1; DELETE FROM tags",
    ],
)
def test_sql_cannot_write(client: httpx.Client, site: str, served: Path, sql: str) -> None:
    """SQL that would write is refused with a sentence, and the file does not change."""
    before = served.read_bytes()
    answer = client.get(f"{site}/tagsync", params={"sql": sql})
    assert answer.status_code == 400
    assert "Traceback" not in answer.text
    assert served.read_bytes() == before
    beside = {path.name for path in served.parent.iterdir()} - {"config.toml", "tagsync.db"}
    assert beside <= {"tagsync.db-wal", "tagsync.db-shm", "tagsync.db.writer-lock"}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:9000", 200),
        ("localhost.:9000", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8001", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example:8001", 421),
        ("192.0.2.1", 421),
        ("", 421),
    ],
)
def test_the_name_of_another_site_is_refused(
    client: httpx.Client, site: str, host: str, status: int
) -> None:
    """A request to a name that resolves to this machine (DNS rebinding) gets no data."""
    for path in ("/", "/tagsync/tags.json"):
        answer = client.get(f"{site}{path}", headers={"Host": host})
        assert answer.status_code == status
        assert status == 200 or "team" not in answer.text


# Requests that a browser sends for a page of another site. The headers are those of Fetch Metadata.

LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
TEN_PARAMETERS = "&".join(f"p{number}=1" for number in range(10))


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ({}, "/tagsync?sql=select+1", 200),
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, "/tagsync?sql=select+1", 200),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, "/tagsync/tags.json", 200),
        (LINK, "/", 200),
        (LINK, "/repository?name=swr/team/api", 200),
        (LINK, f"/?{TEN_PARAMETERS}", 200),
        (LINK, f"/?{TEN_PARAMETERS}&p10=1", 403),
        (LINK, "/tagsync?sql=select+1", 403),
        (LINK, "/tagsync?%73q%6c=select+1", 403),
        (LINK, "/tagsync?SQL=select+1", 403),
        (LINK, "/tagsync/tags?_where=1", 403),
        (LINK, "/tagsync/tags?_where", 403),
        (LINK | {"Sec-Fetch-Site": "same-site"}, "/", 200),
        (LINK | {"Sec-Fetch-Site": "same-site"}, "/tagsync?sql=select+1", 403),
        (LINK | {"Sec-Fetch-Site": "new-word"}, "/tagsync?sql=select+1", 403),
        (LINK | {"Sec-Fetch-Dest": "iframe"}, "/", 403),
        (LINK | {"Sec-Fetch-Dest": "image", "Sec-Fetch-Mode": "no-cors"}, "/", 403),
        (LINK | {"Sec-Fetch-Dest": "empty", "Sec-Fetch-Mode": "cors"}, "/", 403),
        ({"Sec-Fetch-Site": "cross-site"}, "/", 403),
        ({"Origin": "http://evil.example"}, "/", 403),
        ({"Origin": "null"}, "/", 403),
    ],
)
def test_requests_from_other_sites(
    client: httpx.Client, site: str, headers: dict[str, str], path: str, status: int
) -> None:
    """Only a link to a page is answered, with few parameters and without SQL."""
    answer = client.get(f"{site}{path}", headers=headers)
    assert answer.status_code == status
    assert (status == 403) == ("Copy the address into the address bar" in answer.text)
    if headers.get("Sec-Fetch-Dest") == "document":
        assert client.head(f"{site}{path}", headers=headers).status_code == 403


def test_own_origin_is_not_another_site(client: httpx.Client, site: str) -> None:
    """A browser without Fetch Metadata may send the pages' own origin."""
    assert client.get(site, headers={"Origin": site}).status_code == 200


@pytest.mark.parametrize(("parameters", "status"), [(100, 200), (101, 400), (7000, 400)])
def test_number_of_parameters_is_bounded(site: str, parameters: int, status: int) -> None:
    """Many parameters, which would keep Datasette busy for minutes, are refused at once."""
    query = "&".join(f"p{number}=1" for number in range(parameters))
    connection = HTTPConnection("127.0.0.1", int(site.rpartition(":")[2]), timeout=10)
    with closing(connection):
        connection.request("GET", f"/?{query}")
        answer = connection.getresponse()
        assert answer.status == status
        assert status == 200 or b"at most 100 parameters" in answer.read()


class RecordingProxy:
    """Sends requests on to the pages, and records the path and status of each."""

    def __init__(self, site: str) -> None:
        self.answers: list[tuple[str, int]] = []
        answers = self.answers

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                headers = {key: value for key, value in self.headers.items() if key != "Connection"}
                answer = httpx.get(f"{site}{self.path}", headers=headers, timeout=20)
                answers.append((self.path, answer.status_code))
                self.send_response(answer.status_code)
                for name in ("content-type", "content-security-policy"):
                    self.send_header(name, answer.headers[name])
                self.end_headers()
                self.wfile.write(answer.content)

            def log_message(self, *_arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def foreign_page(body: str) -> Iterator[int]:
    """Serve one page of another site, and yield its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(f"<title>another site</title>{body}".encode())

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_page_of_another_site_in_a_browser(browser: Browser, site: str, host: str) -> None:
    """A real browser may follow a link from another site, but not load anything for its page."""
    with closing(RecordingProxy(site)) as proxy:
        body = (
            f"<a href='{proxy.url}/questions'>link</a> "
            f"<a href='{proxy.url}/tagsync?sql=select+1'>SQL</a> "
            f"<img src='{proxy.url}/?image'>"
            f"<iframe src='{proxy.url}/?frame'></iframe>"
            f"<script>fetch('{proxy.url}/?fetch', {{mode: 'no-cors'}});"
            f"fetch('{proxy.url}/?cors').catch(() => 0)</script>"
        )
        loads = {"/?image", "/?frame", "/?fetch", "/?cors"}
        with foreign_page(body) as port:
            browser.get(f"http://{host}:{port}/")
            waiting = WebDriverWait(browser, 60, 0.05)
            waiting.until(lambda _: loads <= {path for path, _ in proxy.answers})
            assert {path: status for path, status in proxy.answers if path in loads} == (
                dict.fromkeys(loads, 403)
            )
            follow(browser, By.LINK_TEXT, "link")
            assert browser.find_element(By.TAG_NAME, "h1").text == "Questions"
            browser.get(f"http://{host}:{port}/")
            follow(browser, By.LINK_TEXT, "SQL")
            assert "without SQL" in text_of(browser)
            assert ("/questions", 200) in proxy.answers
            assert ("/tagsync?sql=select+1", 403) in proxy.answers
        browser.get(f"{proxy.url}/tagsync?sql=select+1")
        assert proxy.answers[-1][1] == 200 or ("/tagsync?sql=select+1", 200) in proxy.answers


def test_no_cell_of_a_csv_file_is_a_formula(client: httpx.Client, site: str) -> None:
    """Formulas begin with an apostrophe, in every export."""
    for path in (
        "/tagsync/current_tags.csv",
        "/tagsync/tags.csv?_stream=1&_size=1",
        "/tagsync.csv?sql=SELECT+tag+FROM+tags",
    ):
        rows = list(csv.reader(io.StringIO(client.get(f"{site}{path}").text)))
        found = [cell for row in rows for cell in row]
        assert "'=cmd()" in found
        assert "=cmd()" not in found


def test_a_missing_page(client: httpx.Client, site: str) -> None:
    """A missing page is one sentence, as HTML or as JSON."""
    page = client.get(f"{site}{page_of('repository', name='swr/team/typo')}")
    assert page.status_code == 404
    assert "was ever polled" in page.text
    answer = client.get(f"{site}/tagsync/nowhere.json")
    assert answer.status_code == 404
    assert answer.json()["ok"] is False
    for number in ("y", "-1", "9" * 19, "9" * 5000):
        wrong = client.get(f"{site}{page_of('repository', name='swr/team/api', before=number)}")
        assert wrong.status_code == 400, number
        assert "invalid parameter before" in wrong.text
    assert client.get(f"{site}/tagsync.db").status_code == 403


@pytest.mark.parametrize("patch", ["formats.duration = bug", "queries.summarize = bug"])
def test_a_bug_is_called_a_bug(patch: str, folder: Path, client: httpx.Client) -> None:
    """An unexpected exception, in a template or a query, is a bug on the page and in the log."""
    program = """
from tagsync.cli import main
from tagsync.web import formats, queries
def bug(_):
    raise KeyError("a wrong name")
PATCH
main()
""".replace("PATCH", patch)
    arguments = ["--config", "tagsync-demo/config.toml", "web", "--port", "0"]
    with serving([sys.executable, "-c", program, *arguments], folder) as (site, process):
        answer = client.get(site)
        assert answer.status_code == 500
        assert "This is a bug in tagsync: please report it" in answer.text
        assert "a wrong name" not in answer.text
        assert client.get(f"{site}/questions").status_code == 200
        process.terminate()
        _, err = process.communicate(timeout=15)
    (event,) = map(json.loads, err.splitlines())
    assert (event["event"], event["path"]) == ("web.failed", "/")
    assert event["error"] == "KeyError: 'a wrong name'"
    assert event["exception"].startswith("Traceback (most recent call last):\n")
    assert ", in bug\n" in event["exception"]


def test_a_wrong_url_of_datasette(client: httpx.Client, site: str) -> None:
    """Datasette's message is shown; if it has none, the page says that the URL may be wrong."""
    wrong = client.get(f"{site}/tagsync/tags?_sort=nope")
    assert wrong.status_code == 400
    assert "Cannot sort table by nope" in wrong.text
    failed = client.get(f"{site}/tagsync/tags?_timelimit=x")
    assert failed.status_code == 500
    assert (
        "Datasette cannot answer this URL. If a page links to this URL, this is a bug"
        in failed.text
    )


# --- other processes, and the end ----------------------------------------------------------------


def test_beside_a_writer(client: httpx.Client, site: str, served: Path) -> None:
    """Pages show the state before an open transaction, and its result after its commit."""
    with closing(sqlite3.connect(served, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute(
            "INSERT INTO repositories (registry, name, last_attempt_at, hash)"
            " VALUES ('swr', 'team/new', '2026-05-03T12:00:00.000Z', '')"
        )
        during = client.get(f"{site}/repositories")
        writer.execute("COMMIT")
        after = client.get(f"{site}/repositories")
        writer.execute("DELETE FROM repositories WHERE name = 'team/new'")
    assert (during.status_code, after.status_code) == (200, 200)
    assert "swr/team/new" not in during.text
    assert "swr/team/new" in after.text


def unprivileged() -> list[str]:
    """Return a prefix that takes away root's power to ignore permissions."""
    if os.geteuid():
        return []
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


def test_as_a_user_who_may_only_read(client: httpx.Client, tmp_path: Path) -> None:
    """The pages need no permission to write, and show what other users write later."""
    config, path = configure(tmp_path), tmp_path / "tagsync.db"
    Store.open(path).close()
    assert not Path(f"{path}-wal").exists()
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    arguments = [*unprivileged(), *command("--config", config, "web", "--port", 0)]
    with ExitStack() as stack:
        stack.callback(tmp_path.chmod, 0o755)
        site, _ = stack.enter_context(serving(arguments, tmp_path))
        assert "Nothing has been recorded yet" in client.get(site).text
        assert {found.name for found in tmp_path.iterdir()} == FILES
        path.chmod(0o644)
        tmp_path.chmod(0o755)
        writer = stack.enter_context(closing(sqlite3.connect(path, isolation_level=None)))
        writer.execute(
            "INSERT INTO repositories (registry, name, last_attempt_at, hash)"
            " VALUES ('swr', 'team/new', '2026-05-03T12:00:00.000Z', '')"
        )
        tmp_path.chmod(0o555)
        assert "swr/team/new" in client.get(site).text


def test_the_gaps_of_a_tag_with_many_changes(
    client: httpx.Client, served: Path, tmp_path: Path
) -> None:
    """If a tag has more changes than its page shows, the caption says since when gaps are shown."""
    folder = copytree(served.parent, tmp_path / "copy")
    address = page_of("tag", repository=f"swr/{API}", tag="latest")
    with serving(command("web", "--port", "0"), folder) as (site, _):
        assert "since the tag was first seen" in client.get(site + address).text
        with closing(sqlite3.connect(folder / served.name)) as connection, connection:
            connection.execute(
                "INSERT INTO changes (repository_id, tag, kind, fields, not_before, observed_at,"
                " hash) SELECT c.repository_id, c.tag, 'updated', '{}', c.observed_at,"
                " c.observed_at, '' FROM changes AS c, json_each(?)"
                " WHERE c.id = (SELECT max(id) FROM changes WHERE tag = 'latest')",
                [json.dumps(list(range(HISTORY)))],
            )
        assert "since the oldest change above" in client.get(site + address).text


def test_a_database_that_goes_away_and_comes_back(client: httpx.Client, tmp_path: Path) -> None:
    """Pages say that the file is missing, and work again when it is back."""
    config, path = configure(tmp_path), tmp_path / "tagsync.db"
    Store.open(path).close()
    with serving(command("--config", config, "web", "--port", 0), tmp_path) as (site, process):
        assert client.get(site).status_code == 200
        assert {file.name for file in tmp_path.iterdir()} == FILES
        path.unlink()
        for page in PAGES:
            gone = client.get(f"{site}{page}")
            assert gone.status_code == (200 if page == "/questions" else 503), page
            assert "tagsync.db" in gone.text or page == "/questions"
        Store.open(path).close()
        assert client.get(site).status_code == 200
        process.terminate()
        assert process.communicate(timeout=15) == ("", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(
    client: httpx.Client, tmp_path: Path, number: signal.Signals
) -> None:
    """The status is 0 and nothing is printed, even while a long query runs."""
    config = configure(tmp_path)
    Store.open(tmp_path / "tagsync.db").close()
    with serving(command("--config", config, "web", "--port", 0), tmp_path) as (site, process):
        endless = (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
        )
        port = int(site.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as asking:
            request = f"GET {page_of('tagsync', sql=endless)} HTTP/1.1\r\nHost: localhost\r\n\r\n"
            asking.sendall(request.encode())
            assert client.get(site).status_code == 200
            process.send_signal(number)
            output = process.communicate(timeout=15)
        assert (process.returncode, *output) == (0, "", "")


# A search for a long text in a longer one: SQLite compares them in one step, for minutes.
NOT_INTERRUPTIBLE = "SELECT instr(zeroblob(60000000), CAST(zeroblob(30000000) || 'x' AS BLOB))"


def test_a_query_that_cannot_be_interrupted_does_not_delay_the_end(tmp_path: Path) -> None:
    """The process ends within five seconds of SIGTERM, whatever a query does."""
    config = configure(tmp_path)
    Store.open(tmp_path / "tagsync.db").close()
    with serving(command("--config", config, "web", "--port", 0), tmp_path) as (site, process):
        port = int(site.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as asking:
            path = page_of("tagsync", sql=NOT_INTERRUPTIBLE)
            asking.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            sleep(1)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=5)
        assert process.returncode == 0


LARGE_QUERIES = {
    "a value": "SELECT length(randomblob(900000000))",
    "a joined text": (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 2000)"
        " SELECT group_concat(i || hex(zeroblob(200000))) FROM n"
    ),
    "many rows": (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 900)"
        " SELECT randomblob(1000000) FROM n"
    ),
}


@pytest.mark.parametrize("sql", LARGE_QUERIES.values(), ids=LARGE_QUERIES)
def test_memory_of_a_query_is_bounded(client: httpx.Client, site: str, sql: str) -> None:
    """A query that needs more memory fails with a sentence, and the next one is answered."""
    answer = client.get(f"{site}/tagsync", params={"sql": sql})
    assert answer.status_code == 400
    assert "the query needs more than 256 MiB of memory" in answer.text
    assert client.get(f"{site}/tagsync/tags").status_code == 200


def test_a_long_query_is_interrupted(client: httpx.Client, site: str) -> None:
    """A shorter time limit in the URL applies; the response is one sentence."""
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    answer = client.get(f"{site}/tagsync", params={"sql": endless, "_timelimit": "50"}, timeout=20)
    assert answer.status_code == 400
    assert "The query took longer" in answer.text


# --- what the command refuses --------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", "127.0.0.1.example"])  # noqa: S104
def test_other_addresses_than_loopback_are_refused(served: Path, host: str) -> None:
    """The pages have no login; the sentence says how other people can connect."""
    with pytest.raises(ConfigError, match=r"is not a loopback address.+SSH tunnel"):
        serve(served, (), {}, host, 0, pytest.fail)


def test_a_port_that_is_in_use(served: Path) -> None:
    """The sentence names the port and a remedy."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigError, match=f"cannot listen on port {port} of 127.0.0.1 .+--port"
        ):
            serve(served, (), {}, "127.0.0.1", port, pytest.fail)


def make_nothing(_path: Path) -> None:
    pass


def make_foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (id)")


def make_newer(path: Path) -> None:
    Store.open(path).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at)"
            " VALUES ('tagsync', 'from_the_future', '2030')"
        )


def make_older(path: Path) -> None:
    Store.open(path).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM _sqlite_migrations")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (make_nothing, "there is no database at"),
        (make_foreign, "is a database of another program"),
        (make_newer, "has the schema of another tagsync"),
        (make_older, "was last written by an older tagsync"),
    ],
)
def test_a_database_that_is_not_ours(
    tmp_path: Path, make: Callable[[Path], None], expected: str
) -> None:
    """An unusable database is refused before anything is served, and no file changes."""
    path = tmp_path / "tagsync.db"
    make(path)
    before = {found.name: found.read_bytes() for found in tmp_path.iterdir()}
    with pytest.raises(UnusableDatabase, match=expected):
        serve(path, (), {}, "127.0.0.1", 0, pytest.fail)
    after = {found.name: found.read_bytes() for found in tmp_path.iterdir()}
    assert after == before


def test_a_refusal_is_one_sentence(tmp_path: Path) -> None:
    """A command that cannot begin prints one line on standard error."""
    sentence = refused("--config", configure(tmp_path), "web", "--port", 0, cwd=tmp_path, status=1)
    assert sentence.startswith("tagsync: there is no database at ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.toml"]


def test_pysqlite3_is_not_used(folder: Path, client: httpx.Client, tmp_path: Path) -> None:
    """All pages work if pysqlite3 is installed, which Datasette would prefer."""
    (tmp_path / "pysqlite3.py").write_text("raise AssertionError('it was taken')")
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from tagsync.cli import main; main()"
    )
    arguments = ["--config", "tagsync-demo/config.toml", "web", "--port", "0"]
    with serving([sys.executable, "-c", program, *arguments], folder) as (site, _):
        assert [client.get(f"{site}{page}").status_code for page in PAGES] == [200] * len(PAGES)


def test_without_the_extra(tmp_path: Path) -> None:
    """If Datasette is not installed, one sentence says how to install it."""
    program = "import sys; sys.modules['datasette'] = None; from tagsync.cli import main; main()"
    finished = subprocess.run(
        [sys.executable, "-c", program, "web"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (finished.returncode, finished.stdout) == (1, "")
    (line,) = finished.stderr.splitlines()
    assert "pip install '.[web]'" in line

"""The pages of ``tagsync web``: a recorded world, its server, and a real browser."""

import json
import re
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import urlencode

import msgspec
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import staleness_of
from selenium.webdriver.support.wait import WebDriverWait

from tagsync.clock import timestamp, utc_now
from tagsync.database.store import Store
from tagsync.database.verifications import Verification
from tagsync.emulator import Emulator
from tagsync.errors import Unreachable
from tagsync.manifests import fetched_image
from tagsync.models import Image, Listing, Repository, Tag
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tests.support.clock import FakeClock
from tests.support.commands import environment, error_line, tagsync
from tests.support.immutable import add_acceptance, add_violation
from tests.support.registries import INTERVAL, Scripted, World, poll_any_names

API, HOSTILE, IMAGES = "team/api", "team/hostile", "team/images"
LONG, LONG_TAG = f"team/{'n' * 120}/{'m' * 120}", "t" * 128
MANIFEST = json.dumps({"layers": [{"digest": f"sha256:{'5' * 64}", "size": 7}], "a": "<b>\u202e"})
CHROMIUM = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--disable-dev-shm-usage",
)
FILES = {"config.toml", "tagsync.db", "tagsync.db.writer-lock"}
Browser = Chrome


def configure(folder: Path, watch: str = "") -> Path:
    """Write a configuration, with the keys of a watch if there are any."""
    path = folder / "config.toml"
    path.write_text(
        '[store]\npath = "tagsync.db"\n'
        '[[registries]]\nname = "swr"\nendpoint = "http://127.0.0.1:9"\n'
        + (f"[[registries.watch]]\n{watch}\n" if watch else "")
    )
    return path


@contextmanager
def serving(arguments: Sequence[str], cwd: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start a process that serves pages, yield its address and itself, and stop it at the end."""
    process = subprocess.Popen(
        arguments,
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout
        try:
            address = process.stdout.readline().strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address), process.communicate()
            yield address.rstrip("/"), process
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(timeout=15)


def refused(*arguments: object, cwd: Path, status: int = 2) -> str:
    """Run a command that is refused, and return its one sentence."""
    return error_line(tagsync(*arguments, cwd=cwd), status)


class Trap:
    """A listener that counts connections; there should be none."""

    def __init__(self) -> None:
        self.visits = 0
        self.visited = Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        self._thread = Thread(target=self._count, daemon=True)
        self._thread.start()

    def _count(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.visits += 1
            self.visited.set()
            connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


def hostile_names(url: str) -> tuple[str, ...]:
    """Return names of tags that visit a URL if they are treated as more than text."""
    act = f"document.title='owned';fetch('{url}')"
    return (
        f"<script>{act}</script>",
        f'"><img src=x onerror="{act}">',
        f'\'><svg/onload="{act}">',
        f"</title></textarea></pre><script>{act}</script>",
        f"<link rel=stylesheet href={url}>",
        f"javascript:{act}",
        "{{ 7 * 7 }}",
        "=cmd()",
        "v1\u202egnp",
        f"{url}looks-like-a-link",
    )


def poll_many_fields(store: Store, clock: FakeClock, repository: Repository) -> None:
    """Poll a listing in which a tag has other values of most fields, and the same digest."""
    clock.advance(minutes=5)
    registry, digest = Scripted(clock), sha256(b"second").hexdigest()
    fields = {"image_id": "i", "size": 1, "path": "p", "internal_path": "q" * 300, "schema": 2}
    times = {"created": "2026", "updated": "2026", "domain_id": "d", "is_trusted": True}
    registry.then(
        msgspec.convert({"tag": LONG_TAG, "digest": f"sha256:{digest}"} | fields | times, Tag)
    )
    poll(Job(repository, registry, INTERVAL), store, clock=clock)


def image_of(content: dict[str, Any]) -> Image:
    """Return an image with a verified manifest."""
    text = json.dumps({"schemaVersion": 2, **content})
    image = fetched_image(f"sha256:{sha256(text.encode()).hexdigest()}", text.encode(), "")
    assert image is not None
    return image


def layered(*sizes: int) -> Image:
    """Return an image with a layer of each size, the same for the same size."""
    layers = [{"digest": f"sha256:{size:064x}", "size": size} for size in sizes]
    config = {"digest": f"sha256:{sum(sizes):064x}", "size": 7}
    return image_of({"config": config, "layers": layers})


LAYERED, OTHER = layered(1_000_000, 250_000, 1), layered(1_000_000, 500_000)
INDEX = image_of(
    {
        "manifests": [
            {"digest": LAYERED.digest, "platform": {"os": "linux", "architecture": "amd64"}},
            {"digest": f"sha256:{'9' * 64}"},
        ]
    }
)


def poll_images(store: Store, clock: FakeClock) -> None:
    """Poll a repository whose tags lead to images with layers, and to an index of one."""
    registry, now = Scripted(clock), timestamp(clock.now)
    images = {"index": INDEX, "layered": LAYERED, "other": OTHER}
    listed = {tag: Tag(tag, image.digest) for tag, image in images.items()}
    found = {image.digest: image for image in images.values()}
    registry.script.append(Listing(listed, found, now, now, None))
    poll(Job(Repository("swr", IMAGES), registry, INTERVAL), store, clock=clock)


def record_world(path: Path, hostile: Sequence[str]) -> None:
    """Record ten hours of ordinary, of hostile and of very long names.

    Args:
        path: The database to create.
        hostile: Names of tags of the repository `HOSTILE`.
    """
    clock = FakeClock()
    clock.now = utc_now() - timedelta(hours=10)
    with Emulator(clock=clock) as emulator, Store.open(path) as store:
        world, repository = World(emulator, store, clock), Repository("swr", HOSTILE)
        poll_images(store, clock)
        for tag in ("latest", "v1.0.0"):
            emulator.push(API, tag, "first")
        world.poll(API)
        poll_any_names(store, clock, repository, dict.fromkeys(hostile, "first"))
        emulator.push(API, "latest", "second")
        world.poll(API)
        poll_any_names(store, clock, repository, {tag: f"second {tag}" for tag in hostile})
        emulator.delete(API, "v1.0.0")
        world.poll(API, after=timedelta(hours=3))
        poll_any_names(store, clock, repository, {tag: f"second {tag}" for tag in hostile[1:]})
        long = Repository("swr", LONG)
        for image in ("first", "second"):
            clock.advance(minutes=5)
            poll_any_names(store, clock, long, {LONG_TAG: image})
        poll_many_fields(store, clock, long)
        emulator.answer_next(403, {"errors": [{"errorMessage": hostile[0]}]})
        world.poll(HOSTILE)
        world.poll(API, after=utc_now() - clock.now)
        world.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO images (digest, manifest, verified, first_observed_at)"
            " VALUES (?, ?, 0, '2026-05-03T12:00:00.000Z')",
            (f"sha256:{'4' * 64}", MANIFEST),
        )
        moves = connection.execute("SELECT id, previous_digest, tag FROM tag_moves").fetchall()
    for change, previous, tag in moves:
        if tag in hostile:
            add_violation(path, change, previous=previous)
            add_acceptance(path, change, reason=tag)


CROWD = [f"registry-{'r' * 40}-{number}" for number in range(6)]
"""Names of registries, more than a front page shows."""


def record_crowd(folder: Path) -> None:
    """Record what makes a front page as long as it gets, and configure its registries.

    Each registry is stale and has a move of a tag that must not move; the first one has a tag whose
    name promises so. Each of the first three also has a repository that fails with a long error.
    The last verification found a fault.

    Args:
        folder: The folder of the database and the configuration.
    """
    (folder / "config.toml").write_text(
        '[store]\npath = "tagsync.db"\n'
        + "".join(
            f'[[registries]]\nname = "{name}"\nendpoint = "http://127.0.0.1:9"\n'
            '[registries.auth]\nkind = "none"\n[[registries.watch]]\nrepositories = ["*"]\n'
            for name in CROWD
        )
    )
    clock, tag = FakeClock(), f"v1.2.3-{'t' * 100}"
    clock.now = utc_now() - timedelta(days=2)
    with Store.open(folder / "tagsync.db") as store:
        for image in ("first", "second"):
            for name in CROWD:
                clock.advance(minutes=1)
                registry = Scripted(clock)
                registry.then(Tag(tag, f"sha256:{sha256(image.encode()).hexdigest()}"))
                immutable = ("v*",) if name != CROWD[0] else ()
                job = Job(Repository(name, LONG), registry, INTERVAL, immutable=immutable)
                poll(job, store, clock=clock)
        for name in CROWD[:3]:
            failing = Scripted(clock)
            failing.script.append(Unreachable("no connection to the host, " * 20))
            poll(Job(Repository(name, API), failing, INTERVAL), store, clock=clock)
        fault = "the hash of change 7 is not that of its content. " * 8
        store.record_verification(Verification(timestamp(clock.now), "fault", 3.0, fault))


def find_browser() -> tuple[str, str] | None:
    """Return the paths of Chromium and its driver, or None if one is not installed."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    return (chromium, driver) if chromium and driver else None


def open_browser(chromium: str, driver: str, profile: Path) -> Browser:
    """Open a browser. The caller quits it."""
    options = ChromeOptions()
    options.binary_location = chromium
    for argument in (*CHROMIUM, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    chrome = Chrome(options, ChromeService(driver))
    chrome.set_page_load_timeout(60)
    return chrome


def follow(browser: Browser, by: str, what: str) -> None:
    """Click a link or button, and wait for the next page."""
    leave(browser, browser.find_element(by, what).click)


def leave(browser: Browser, act: Callable[[], object]) -> None:
    """Do what leads to another page, and wait for that."""
    left = browser.find_element(By.TAG_NAME, "html")
    act()
    # While a page unloads, the driver may raise any error about its nodes.
    waiting = WebDriverWait(browser, 60, 0.05, ignored_exceptions=[WebDriverException])
    waiting.until(staleness_of(left))


def text_of(browser: Browser) -> str:
    return browser.find_element(By.TAG_NAME, "body").text


def cells(browser: Browser, table: int = 0) -> list[list[str]]:
    """Return the texts of the cells of a table."""
    rows = browser.find_elements(By.TAG_NAME, "table")[table].find_elements(
        By.CSS_SELECTOR, "tbody tr"
    )
    return [[cell.text for cell in row.find_elements(By.TAG_NAME, "td")] for row in rows]


def page_of(page: str, **arguments: str) -> str:
    return f"/{page}?{urlencode(arguments)}"


def emulate(browser: Browser, width: int, scheme: str = "light", height: int = 900) -> None:
    """Give the browser's window a size in pixels, and a colour scheme."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def accessibility_faults(browser: Browser) -> list[tuple[str, str, str]]:
    """Return axe-core's serious and critical findings: rule, element and explanation."""
    browser.execute_script(_axe())
    found: dict[str, Any] = browser.execute_async_script(
        "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then(done)"
    )
    return [
        (violation["id"], node["html"][:200], node.get("failureSummary", ""))
        for violation in found["violations"]
        if violation["impact"] in {"serious", "critical"}
        for node in violation["nodes"]
    ]


def overflowing(browser: Browser) -> list[str]:
    """Return what reaches beyond the window, except in labelled regions that scroll by keyboard."""
    found: list[str] = browser.execute_script(_OVERFLOWING)
    return found


@cache
def _axe() -> str:
    return files("axe_core_python").joinpath("axe.min.js").read_text()


_OVERFLOWING = """
    const width = document.documentElement.clientWidth, found = [];
    if (document.documentElement.scrollWidth > width)
        found.push('the page: ' + document.documentElement.scrollWidth);
    for (const element of document.querySelectorAll('body *')) {
        const region = element.closest('[role=region][tabindex="0"][aria-label]');
        if (region && region !== element) continue;
        const box = element.getBoundingClientRect();
        if (box.width && box.height && (box.right > width + 0.5 || box.left < -0.5)
            && !element.closest('.skip'))
            found.push(element.tagName + ': ' + element.textContent.trim().slice(0, 60));
    }
    return found;
"""

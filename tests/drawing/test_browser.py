"""The drawings in a real browser: texts have room at every width, and places are true."""

import random
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from selenium.webdriver import Chrome

from tagsync.drawing import (
    draw_bars,
    draw_heat_map,
    draw_lanes,
    draw_layers,
    draw_strips,
    stylesheet,
)
from tagsync.drawing.values import (
    Block,
    Day,
    Deletion,
    Gap,
    Interval,
    Lane,
    Layer,
    Range,
    Strip,
)

pytestmark = pytest.mark.processes

END = datetime(2026, 11, 26, 12, 38, tzinfo=UTC)
SPAN = Range(END - timedelta(days=30), END)
MARGIN = 20
LONG = "swr/team-a/" + "a-very-long-name-" * 10 + "end"
RANGES = (*(timedelta(hours=hours) for hours in (1, 6)), *map(timedelta, (1, 7, 30, 90, 365, 3650)))

MEASURE = """
const faults = [];
for (const svg of document.querySelectorAll("svg.drawing")) {
  const whole = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll("text")]
    .map(text => [text, text.getBoundingClientRect()]).filter(([_, box]) => box.width);
  for (const [text, box] of texts)
    if (box.left < whole.left - 1 || box.right > whole.right + 1)
      faults.push("outside: " + text.textContent);
  texts.forEach(([one, a], index) => texts.slice(index + 1).forEach(([other, b]) => {
    if (a.left < b.right && b.left < a.right && a.top < b.bottom - 3 && b.top < a.bottom - 3)
      faults.push("overlap: " + one.textContent + " | " + other.textContent);
  }));
  for (const [text, box] of texts.filter(([text]) => text.closest(".digits"))) {
    const colour = text.classList[0].replace("on-", "");
    const bars = [...svg.querySelectorAll(`.lane .${colour} rect`)];
    if (!bars.map(bar => bar.getBoundingClientRect())
        .some(bar => bar.left <= box.left && box.right <= bar.right
                     && bar.top <= box.top && box.bottom <= bar.bottom))
      faults.push("not inside: " + text.textContent);
  }
}
if (document.documentElement.scrollWidth > innerWidth) faults.push("the page is too wide");
return faults;
"""
"""Finds texts outside of their drawing or interval, and texts over each other."""


def lane(name: str, moves: int, seed: int) -> Lane:
    """Return a lane with moves at random times, each with a window of an hour."""
    chosen = random.Random(seed)
    times = sorted(SPAN.start + chosen.random() * SPAN.length for _ in range(moves))
    window = timedelta(hours=1)
    intervals = [
        Interval(
            f"sha256:{chosen.randbytes(32).hex()}" if number % 5 else None,
            at - window,
            at,
            end - window,
            end,
            f"image?number={number}",
        )
        for number, (at, end) in enumerate(zip(times, [*times[1:], END], strict=True))
    ]
    return Lane(name, tuple(intervals), (Deletion(None, times[-1]),), "tag?x=1")


def drawings() -> list[str]:
    day = timedelta(days=1)
    gaps = [
        Gap(SPAN.start, SPAN.start + day, watched=False),
        Gap(END - 9 * day, END - 7 * day, "the daemon was not running"),
    ]
    lanes = [lane(f"v1.{moves}", moves, moves) for moves in (1, 3, 8, 20, 60, 3000)]
    strips = [
        Strip(name, tuple(Block(share) for share in (None, 1, 0.5, 0)) * 20, "r?x", "99.94 %")
        for name in ("swr", LONG)
    ]
    days = [Day(date(2026, 10, 28) + index * day, index, 2 * index, 3, 1) for index in range(30)]
    return [
        draw_lanes([*lanes, lane(LONG, 4, 1)], SPAN, gaps, prefix="lanes", title="Lanes"),
        *(
            draw_lanes([], Range(END - length, END), prefix=f"r{index}", title="Axis")
            for index, length in enumerate(RANGES)
        ),
        draw_strips(strips, SPAN, prefix="strips", title="Strips"),
        draw_heat_map(strips, SPAN, prefix="heat", title="Heat map"),
        draw_bars(days, prefix="bars", title="Days"),
        draw_layers(
            [Layer(f"sha256:{'5' * 64}", 10**size, note="in 14 images") for size in range(10)],
            prefix="layers",
            title="Layers",
        ),
    ]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with all drawings, which allows no script."""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    path = tmp_path_factory.mktemp("drawings") / "page.html"
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Drawings</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<style>body {{ margin: {MARGIN}px }} {stylesheet()}</style>{''.join(drawings())}"
    )
    return path


def show(browser: Chrome, page: Path, width: int, scheme: str = "light") -> None:
    """Open the page at a width, in light or dark."""
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())


@pytest.mark.parametrize("width", [360, 390, 599, 600, 900, 1200, 1280, 1920])
def test_texts_have_room(browser: Chrome, page: Path, width: int) -> None:
    """No text leaves its drawing or interval, or stands over another one."""
    show(browser, page, width)
    assert browser.execute_script(MEASURE) == []


def test_rectangles_are_at_their_moments(browser: Chrome, tmp_path: Path) -> None:
    """The ends of a rectangle are the interval's moments, within half a pixel."""
    start, end = SPAN.start + timedelta(days=6), SPAN.start + timedelta(days=21)
    one = Lane("v1", (Interval("sha256:1", None, start, end, None),))
    path = tmp_path / "page.html"
    drawing = draw_lanes([one], SPAN, prefix="p", title="t")
    path.write_text(f"<style>body {{ margin: {MARGIN}px }} {stylesheet()}</style>{drawing}")
    show(browser, path, 1280)
    left, right = browser.execute_script(
        "const box = document.querySelector('.lane g rect').getBoundingClientRect();"
        "return [box.left, box.right]"
    )
    assert left == pytest.approx(MARGIN + 0.2 * 1240, abs=0.5)
    assert right == pytest.approx(MARGIN + 0.7 * 1240, abs=0.5)


def test_dark_pages_have_other_colours(browser: Chrome, page: Path) -> None:
    """The stylesheet follows the scheme of the browser."""
    fills = set()
    for scheme in ("light", "dark"):
        show(browser, page, 1280, scheme)
        fill = "return getComputedStyle(document.querySelector('.name text')).fill"
        fills.add(browser.execute_script(fill))
    assert len(fills) == 2

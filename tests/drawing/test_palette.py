"""The colours: neighbours differ, texts are legible, and brightness differs, too."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagsync.drawing import stylesheet
from tagsync.drawing.palette import COLOURS, colour_of, colours
from tagsync.drawing.room import PAGES


def schemes() -> dict[str, dict[str, str]]:
    """Return the colours of each scheme: name → #rrggbb. The dark one overrides the light one."""
    light, dark = stylesheet().split("@media screen and (prefers-color-scheme: dark)")
    dark = dark.split("@media")[0]
    found = [dict(re.findall(r"--d-([\w-]+): (#[0-9a-f]{6})\b", css)) for css in (light, dark)]
    assert found[0].keys() == found[1].keys()
    return {"light": found[0], "dark": found[1]}


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour (WCAG 2.2)."""
    channels = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in channels
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours (WCAG 2.2), from 1 to 21."""
    darker, brighter = sorted(map(luminance, (one, other)))
    return (brighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_text_on_each_colour_is_legible(scheme: str) -> None:
    """The digits in an interval have a contrast of 4.5:1 with it, and so do all other texts."""
    colour = schemes()[scheme]
    pairs = [(f"on-{index}", str(index)) for index in range(COLOURS)]
    pairs += [("on-many", "many"), ("on-many", "many-line")]
    pairs += [(name, "ground") for name in ("ink", "soft", "link", "mark", "gap")]
    found = {pair: contrast(colour[pair[0]], colour[pair[1]]) for pair in pairs}
    assert {pair: value for pair, value in found.items() if value < 4.5} == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_colours_differ_in_brightness(scheme: str) -> None:
    """Each of the twelve is at least 1.14 times as bright as the next darker one."""
    steps = sorted(luminance(schemes()[scheme][str(index)]) + 0.05 for index in range(COLOURS))
    assert len(steps) == COLOURS == 12
    assert min(brighter / darker for darker, brighter in pairwise(steps)) >= 1.14


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_marks_stand_out_from_the_ground(scheme: str) -> None:
    """What is covered, moved or a layer has a contrast of 3:1 with the page."""
    colour = schemes()[scheme]
    for name in ("covered", "moved", "mark", "gap"):
        assert contrast(colour[name], colour["ground"]) >= 3, name


def test_each_colour_has_rules() -> None:
    """The stylesheet fills intervals and their labels with each of the twelve colours."""
    for index in range(COLOURS):
        assert f".drawing .c{index} {{ fill: var(--d-{index}); }}" in stylesheet()
        assert f".drawing .on-c{index} {{ fill: var(--d-on-{index}); }}" in stylesheet()


def test_the_stylesheet_has_the_widths_of_pages() -> None:
    """Each class ``from-…`` is hidden, and shown from its width on."""
    for page in PAGES:
        assert f".drawing .from-{page} {{ display: none; }}" in stylesheet()
        shown = rf"@media \(min-width: {page}px\) {{ \.drawing \.from-{page} {{ display: inline; }}"
        assert re.search(shown, stylesheet())
    assert set(map(int, re.findall(r"min-width: (\d+)px", stylesheet()))) == set(PAGES)


def test_the_stylesheet_loads_nothing() -> None:
    """No rule has a URL, imports a file, or applies outside of drawings."""
    assert "url(" not in stylesheet()
    assert "@import" not in stylesheet()
    rules = re.sub(r"/\*.*?\*/", "", stylesheet(), flags=re.DOTALL)
    selectors = re.findall(r"(?:^|[{};])\s*([^@{};]+?)\s*{", rules)
    assert selectors
    parts = [part.strip() for selector in selectors for part in selector.split(",")]
    assert all(part.startswith(".drawing") for part in parts)


NAMES = st.sampled_from([f"sha256:{number:x}" for number in range(5)]) | st.text(max_size=8)


@given(st.lists(NAMES, max_size=60))
def test_neighbours_are_never_alike(digests: list[str]) -> None:
    """Different neighbours have different colours, and equal ones the same."""
    (found,) = colours([digests])
    assert len(found) == len(digests)
    assert all(0 <= colour < COLOURS for colour in found)
    for (one, other), (first, second) in zip(pairwise(digests), pairwise(found), strict=True):
        assert (one == other) == (first == second)


def test_a_digest_keeps_its_colour_in_a_lane() -> None:
    """Two digests that alternate have two colours, and one alone has that of its hash."""
    same = next(f"x{n}" for n in range(99) if colour_of(f"x{n}") == colour_of("a"))
    assert colours([["a"]]) == [[colour_of("a")]]
    ((first, second, _, fourth),) = colours([["a", same, "b", same]])
    assert first != second == fourth
    (alternating,) = colours([["a", same] * 3])
    assert alternating == [colour_of("a"), (colour_of("a") + 1) % COLOURS] * 3


def test_a_digest_with_too_many_neighbours_differs_from_each() -> None:
    """If no colour is free for a digest, it has one that its neighbours at that place lack."""
    spokes = [f"spoke-{number}" for number in range(40)]
    digests = [*spokes, *(name for spoke in spokes for name in ("hub", spoke))]
    assert all(one != other for one, other in pairwise(colours([digests])[0]))


def test_a_digest_has_one_colour_in_all_lanes() -> None:
    """A colour means one digest, in all lanes, if there are no more digests than colours."""
    same = [f"x{n}" for n in range(999) if colour_of(f"x{n}") == 0][:COLOURS]
    lanes = [same[:5], same[5:], same[3:9], [same[0]], [same[11], same[0]]]
    found = {
        pair
        for lane, chosen in zip(lanes, colours(lanes), strict=True)
        for pair in zip(lane, chosen, strict=True)
    }
    assert len(found) == len(dict(found)) == len({colour for _, colour in found}) == COLOURS

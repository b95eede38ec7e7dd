"""The parts that all drawings are built of: numbers, texts, and room."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagsync.drawing.elements import node, number, to_text, visible
from tagsync.drawing.room import begin, shorten, shown_from
from tests.support.drawings import parse

ANY = st.text(st.characters(codec=None, exclude_categories=()), max_size=30)
"""Any text, also with lone surrogates and characters that are none."""


@given(ANY)
def test_any_text_is_well_formed(text: str) -> None:
    """A text and an attribute survive in XML, with control characters made visible."""
    made = parse(to_text(node(None, "text", text, id=text)))
    assert made.get("id") == visible(text)
    assert (made.text or "") == visible(text)


def test_characters_that_xml_forbids_are_visible() -> None:
    """The two that are neither control characters nor allowed are written as escape sequences."""
    assert visible("a\ufffe\uffffb\0\n") == "a\\ufffe\\uffffb\\x00\\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (-0.0001, "0"), (1.5, "1.5"), (100.0, "100"), (33.33333, "33.333"), (1e-9, "0")],
)
def test_numbers_have_one_form(value: float, text: str) -> None:
    """A number has at most three decimals, no zeros at its end, and never an exponent."""
    assert number(value) == text


@pytest.mark.parametrize(
    ("share", "shown"),
    [(20.1, "from-360"), (19.9, "from-600"), (11.5, "from-600"), (7.5, "from-900"), (5, None)],
)
def test_a_label_is_shown_where_it_has_room(share: float, shown: str | None) -> None:
    """64 pixels fit into a fifth of a page of 360 pixels, less its margins of 40."""
    assert shown_from(share, 64) == shown


def test_the_middle_of_a_long_name_is_left_out() -> None:
    """The end of a name stays, and wide characters count twice."""
    assert shorten("short", 5) == "short"
    assert shorten("release-2026-11-26", 9) == "rele…1-26"
    assert shorten("名" * 9, 9) == "名名…名名"


@given(ANY, st.integers(3, 20))
def test_a_shortened_text_fits(text: str, width: int) -> None:
    """No text is wider than it may be, and the beginning is always one of the text."""
    cells = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in shorten(text, width))
    assert cells <= width
    assert text.startswith(begin(text, width))

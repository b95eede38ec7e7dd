"""Recorded values as the web pages show them."""

import pytest
from markupsafe import Markup

from tagsync.web.formats import brief_digest, duration, escaped, visible, whole

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "element", "expected"),
    [
        ("v1", "span", "v1"),
        (f"sha256:{HEX}", "code", f"sha256:{HEX}"),
        ("<b>\n\u202e", "span", r"&lt;b&gt;\n\u202e"),
        ("x" * 1000, "span", "x" * 1000),
        ('{"a":1.0E400,"a":[]}', "pre", "{\n  &#34;a&#34;: 1.0E400,\n  &#34;a&#34;: []\n}"),
        ('["<b>\u202e"]', "pre", "[\n  &#34;&lt;b&gt;\\u202e&#34;\n]"),
        ('{"a":', "span", "{&#34;a&#34;:"),
        ("[" * 5000, "span", "[" * 5000),
    ],
)
def test_a_whole_text(text: str, element: str, expected: str) -> None:
    """A text is shown in full and as text; JSON is indented, and its values stay the same."""
    assert str(whole(text)) == f'<{element} class="whole">{expected}</{element}>'
    assert str(whole("")) == '<span class="none">empty</span>'


@pytest.mark.parametrize(
    ("digest", "expected"),
    [
        (f"sha256:{HEX}", HEX[:12]),
        (f"sha512:{HEX * 2}", f"sha512:{HEX[:12]}"),
        ("sha256:\u202e", r"\u202e"),
        (None, ""),
    ],
)
def test_a_brief_digest(digest: str | None, expected: str) -> None:
    """A digest is its first 12 digits, with an algorithm other than SHA-256."""
    assert brief_digest(digest) == expected


def test_texts_of_others() -> None:
    """Control characters become visible, in HTML of Datasette, too; only lists cut a text."""
    assert escaped("a\u202e" + "b" * 300) == r"a\u202e" + "b" * 298 + "…"
    assert escaped("b" * 400, None) == "b" * 400
    assert visible(Markup("<a href='/x'>\u202e</a>")) == Markup(r"<a href='/x'>\u202e</a>")
    assert visible(7) == 7


@pytest.mark.parametrize(
    ("seconds", "expected"), [(40, "40 s"), (300, "5 min"), (9720, "2.7 h"), (2332800, "27 days")]
)
def test_durations(seconds: float, expected: str) -> None:
    """Durations have the unit that people would choose."""
    assert duration(seconds) == expected

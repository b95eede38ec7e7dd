"""The drawing of layers: bars are as long as the sizes, and their number is bounded."""

import pytest
from hypothesis import given

from tagsync.drawing import draw_layers
from tagsync.drawing.layers import show_size
from tagsync.drawing.values import Layer
from tests.support.drawings import by_class, element_count, parse, percents
from tests.support.hostile import TEXTS

DIGEST = "sha256:" + "0123456789abcdef" * 4


def test_bars_are_proportional() -> None:
    """The largest layer fills the width, and another one its share of it."""
    layers = [Layer(DIGEST, size) for size in (25, 100, 0, None)]
    drawing = parse(draw_layers(layers, prefix="p", title="t"))
    assert [percents(rect, "width") for rect in by_class(drawing, "layer")] == [(25,), (100,)]
    texts = [text.text for text in drawing.iter("text")]
    assert texts == [
        *("sha256:0123456789ab", "25 B", "sha256:0123456789ab", "100 B"),
        *("sha256:0123456789ab", "0 B", "sha256:0123456789ab", "size not stated"),
    ]
    described = drawing.findtext("desc")
    assert described == "4 layers, 125 B together. The size of 1 is not stated."


def test_the_smallest_layer_is_visible() -> None:
    """A layer of a few bytes beside one of gigabytes has a bar of a pixel."""
    drawing = parse(draw_layers([Layer(DIGEST, 1), Layer(DIGEST, 10**10)], prefix="p", title="t"))
    ((width,), _) = [percents(rect, "width") for rect in by_class(drawing, "layer")]
    assert width == pytest.approx(100 / 1240, abs=0.001)


def test_the_number_of_layers_is_bounded() -> None:
    """A hostile manifest may list thousands of layers. The drawing says how many it leaves out."""
    drawing = parse(draw_layers([Layer(DIGEST, 1)] * 5000, prefix="p", title="t"))
    assert element_count(drawing) < 1500
    assert [text.text for text in drawing.iter("text")][-1] == "… and 4,800 more layers"


def test_no_layers_are_said_in_words() -> None:
    """An image whose manifest lists no layers has a drawing that says so."""
    drawing = parse(draw_layers([], prefix="p", title="t"))
    assert [text.text for text in drawing.iter("text")] == ["No layers"]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        *(
            (None, "size not stated"),
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1 kB"),
            (999_499, "999 kB"),
        ),
        *((999_600, "1 MB"), (12_345_678, "12.3 MB"), (2_500_000_000, "2.5 GB")),
        *((4_200_000_000_000, "4.2 TB"), (2**63 - 1, "9,223,372 TB")),
    ],
)
def test_sizes_have_units(size: int | None, text: str) -> None:
    """A size has three digits and a decimal unit."""
    assert show_size(size) == text


@given(digest=TEXTS, note=TEXTS)
def test_hostile_texts_stay_texts(digest: str, note: str) -> None:
    """What a manifest calls a digest is text, whatever it contains."""
    drawing = parse(draw_layers([Layer(digest, 1, "l?x", note)], prefix="p", title=digest))
    assert {element.tag for element in drawing.iter()} <= {
        "svg",
        "title",
        "desc",
        "a",
        "text",
        "rect",
    }

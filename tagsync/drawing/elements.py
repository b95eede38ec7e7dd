"""Build SVG elements. Texts are escaped, and all numbers have the same form."""

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from tagsync.escaping import escape_control_characters

Node = ET.Element
"""An element of a drawing."""

Value = str | float
"""A value of an attribute. Numbers are rounded to `DECIMALS`."""

DECIMALS: Final = 3
"""Decimals of a number: a hundredth of a pixel, if the number is a percentage of 1,280 pixels."""

_NAMESPACE: Final = "http://www.w3.org/2000/svg"

_FORBIDDEN: Final = str.maketrans({"\ufffe": "\\ufffe", "\uffff": "\\uffff"})
"""The characters that XML forbids and `escape_control_characters` leaves."""


def visible(text: str) -> str:
    """Return a text with every character that XML forbids, or a browser hides, made visible."""
    escaped = escape_control_characters(text)
    return escaped if escaped.isascii() else escaped.translate(_FORBIDDEN)


def node(parent: Node | None, tag: str, text: str = "", /, **attributes: Value | None) -> Node:
    """Create an element, and append it to its parent.

    Args:
        parent: None for the root.
        tag: Name of the element.
        text: Its text, with control characters made visible.
        attributes: Its attributes. A trailing underscore is removed from a name, and other
            underscores are written as hyphens. An attribute that is None is left out.
    """
    named = {
        name.rstrip("_").replace("_", "-"): _value(value)
        for name, value in attributes.items()
        if value is not None
    }
    made = ET.Element(tag, named) if parent is None else ET.SubElement(parent, tag, named)
    if text:
        made.text = visible(text)
    return made


def number(value: float) -> str:
    """Return a number with at most `DECIMALS` decimals."""
    text = f"{value:.{DECIMALS}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def percent(value: float) -> str:
    """Return a percentage as an attribute's value."""
    return f"{number(value)}%"


def root(prefix: str, *, title: str, description: str, height: float, links: bool) -> Node:
    """Create the root of a drawing, with its text alternative.

    Args:
        prefix: Begins each id in the drawing, so that a page may have several.
        title: The name of the drawing, for people who do not see it.
        description: The drawing in words.
        height: Pixels.
        links: Whether the drawing contains links. An image must not contain any, so that it is
            then a group.
    """
    made = node(
        None,
        "svg",
        xmlns=_NAMESPACE,
        class_="drawing",
        width="100%",
        height=height,
        role="group" if links else "img",
        aria_labelledby=f"{prefix}-title",
        aria_describedby=f"{prefix}-description",
    )
    node(made, "title", title, id=f"{prefix}-title")
    node(made, "desc", description, id=f"{prefix}-description")
    return made


def linked(
    parent: Node,
    href: str | None,
    *,
    title: Sequence[str],
    class_: str | None = None,
    stop: bool = False,
) -> Node:
    """Create a group with a tooltip, which is a link if there is a URL.

    Args:
        parent: The element to append it to.
        href: A relative URL, or None.
        title: The lines of the tooltip, which is also the name of the link. A line break within a
            line is made visible, so that no name can add a line.
        class_: Classes of the group.
        stop: Whether the tab key reaches the link. A drawing with thousands of links would keep
            people without a mouse from what follows it.

    Raises:
        ValueError: If the URL is not relative.
    """
    if href is None:
        made = node(parent, "g", class_=class_)
    else:
        parts = urlsplit(href)
        if parts.scheme or parts.netloc:
            raise ValueError(f"the link {href!r} of a drawing is not relative")
        made = node(parent, "a", href=href, class_=class_, tabindex=None if stop else "-1")
    node(made, "title").text = "\n".join(map(visible, title))
    return made


def to_text(drawing: Node) -> str:
    """Return the drawing as text, for use in a page of HTML."""
    return ET.tostring(drawing, encoding="unicode")


def _value(value: Value) -> str:
    return visible(value) if isinstance(value, str) else number(value)

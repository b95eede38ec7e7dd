"""Read drawings: parse them, and find elements in them."""

import re
from xml.etree import ElementTree as ET

_NAMESPACE = "{http://www.w3.org/2000/svg}"


def parse(drawing: str) -> ET.Element:
    """Parse a drawing. The names of its elements have no namespace."""
    root = ET.fromstring(drawing)  # noqa: S314  a text of ours
    for element in root.iter():
        element.tag = element.tag.removeprefix(_NAMESPACE)
    return root


def by_class(root: ET.Element, pattern: str) -> list[ET.Element]:
    """Return the elements of which a class matches a regular expression."""
    return [
        element
        for element in root.iter()
        if any(re.fullmatch(pattern, name) for name in element.get("class", "").split())
    ]


def percents(element: ET.Element, *names: str) -> tuple[float, ...]:
    """Return attributes that are percentages."""
    values = [element.get(name, "") for name in names]
    assert all(value.endswith("%") for value in values), values
    return tuple(float(value.removesuffix("%")) for value in values)


def titles(root: ET.Element) -> list[str]:
    """Return the texts of all tooltips."""
    return [title.text or "" for title in root.iter("title")]


def element_count(root: ET.Element) -> int:
    """Return the number of elements."""
    return sum(1 for _ in root.iter())

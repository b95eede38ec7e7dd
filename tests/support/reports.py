"""Images and hostile names for reports, and a reader of the formats of a report."""

from collections.abc import Callable
from hashlib import sha256
from html.parser import HTMLParser
from typing import Final

from tagsync.manifests import fetched_image
from tagsync.models import Image
from tagsync.report.content import Report

HOSTILE: Final = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "| a | b |\n|---|---|",
    "`` ` ``",
    "[link](javascript:alert(1)) ![x](http://192.0.2.1/x) <https://192.0.2.1>",
    "**bold** _it_ ~~no~~ &amp; &#60;b&#62;",
    "\x1b[2J\x07\u202e\ufffe",
    "'; DROP TABLE changes; --",
    "\\`|\\",
    " ",
    "*",
)
"""Names of tags that are markup, SQL or control characters somewhere."""


ReportOn = Callable[..., Report]


def image(name: str) -> Image:
    """Return a verified image with two layers."""
    layers = ",".join(
        f'{{"digest":"sha256:{sha256(layer.encode()).hexdigest()}","size":{size}}}'
        for layer, size in (("base", 1000), (name, 2000))
    )
    body = f'{{"schemaVersion":2,"layers":[{layers}]}}'.encode()
    made = fetched_image(f"sha256:{sha256(body).hexdigest()}", body, "application/json")
    assert made is not None
    return made


ONE, TWO, THREE = map(image, ("one", "two", "three"))


class Page(HTMLParser):
    """The elements and texts of a page.

    Attributes:
        elements: The name of each element, with its attributes.
        codes: The text of each ``<code>``.
    """

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.codes: list[str] = []
        self._open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag == "code":
            self.codes.append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        where = self._open[-1] if self._open else ""
        self.texts.append((where, data))
        if where == "code":
            self.codes[-1] += data

    def tags(self) -> set[str]:
        """Return the names of all elements."""
        return {tag for tag, _ in self.elements}

    def attributes(self, name: str) -> list[str]:
        """Return the values of an attribute of all elements."""
        return [value for _, found in self.elements if (value := found.get(name)) is not None]

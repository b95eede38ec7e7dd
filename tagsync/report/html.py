"""Write a document as a page of HTML that needs no other file, and contains no script."""

import base64
import hashlib
import html
from functools import cache
from pathlib import Path
from typing import Final

from tagsync.drawing import stylesheet
from tagsync.drawing.elements import visible
from tagsync.report.document import (
    Block,
    Code,
    Column,
    Document,
    Drawing,
    Facts,
    Heading,
    Inline,
    Listing,
    Notice,
    Paragraph,
    Strong,
    Table,
    Text,
)

_STYLE: Final = Path(__file__).with_name("report.css")

_VOID: Final = frozenset({"meta"})
"""Elements without content and without an end tag."""


class Html(str):
    """A text that is HTML already. `element` escapes every other text."""

    __slots__ = ()


def element(tag: str, /, *content: str, **attributes: str | None) -> Html:
    """Return an element of HTML.

    Args:
        tag: The name of the element.
        content: Elements, and texts, which are escaped.
        attributes: Their values are escaped. A trailing underscore is removed from a name, and
            other underscores are written as hyphens. An attribute that is None is left out.
    """
    named = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(visible(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Html(f"<{tag}{named}>")
    return Html(f"<{tag}{named}>{join(*content)}</{tag}>")


def join(*content: str) -> Html:
    """Return elements and texts as one text of HTML. Texts are escaped."""
    return Html(
        "".join(part if isinstance(part, Html) else html.escape(visible(part)) for part in content)
    )


def to_html(document: Document, title: str) -> str:
    """Return a page of HTML.

    Its Content-Security-Policy forbids scripts, and everything from other files and hosts. It
    permits only the page's own stylesheet, by its hash.

    Args:
        document: The content of the page.
        title: The title of the window.
    """
    style = _style()
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(style)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Html(style)),
    )
    main = element("main", *(_line(_block(block)) for block in document))
    page = element("html", head, element("body", main), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


@cache
def _style() -> str:
    """Return the stylesheet of the page and of its drawings. It contains no text of others."""
    return f"{_STYLE.read_text(encoding='utf-8')}{stylesheet()}"


def _policy(style: str) -> str:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _block(block: Block) -> Html:
    match block:
        case Heading(words, level):
            made = element(f"h{level}", *_parts(words))
        case Paragraph(words, kind):
            made = element("p", *_parts(words), class_=kind or None)
        case Notice(words, kind):
            made = element("p", *_parts(words), class_=f"notice {kind}")
        case Facts(rows):
            pairs = (
                element("div", element("dt", name), element("dd", *_parts(words)))
                for name, words in rows
            )
            made = element("dl", *pairs)
        case Table():
            made = _table(block)
        case Listing(lines, _, label):
            # A keyboard scrolls it only if it can have the focus.
            code = element("code", Html(_lines(lines)))
            made = element("pre", code, tabindex="0", role="region", aria_label=label)
        case Drawing(svg, caption):
            shown = [element("figcaption", *_parts(caption))] if caption else []
            made = element("figure", *shown, Html(svg))
    return made


def _lines(lines: str) -> str:
    """Return lines of code, escaped. Line ends are the only control characters that stay."""
    return "\n".join(html.escape(visible(line)) for line in lines.split("\n"))


def _table(table: Table) -> Html:
    classes = [_class(column) for column in table.columns]
    titles = element(
        "tr",
        *(
            element("th", column.title, scope="col", class_=class_)
            for column, class_ in zip(table.columns, classes, strict=True)
        ),
    )
    rows = (
        element(
            "tr",
            *(
                element("td", *_parts(cell), class_=class_, data_label=column.title)
                for cell, column, class_ in zip(row, table.columns, classes, strict=True)
            ),
        )
        for row in table.rows
    )
    return element(
        "table",
        element("caption", *_parts(table.caption)),
        element("thead", titles),
        element("tbody", *map(_line, rows)),
    )


def _class(column: Column) -> str | None:
    return None if column.kind == "text" else column.kind


def _line(markup: Html) -> Html:
    """Return an element on a line of its own, so that a text editor can show the page."""
    return Html(f"{markup}\n")


def _parts(words: Text) -> list[str]:
    return [_part(word) for word in words]


def _part(word: Inline) -> str:
    match word:
        case Code(content):
            return element("code", content or "(empty)")
        case Strong(content):
            return element("strong", content)
        case _:
            return word

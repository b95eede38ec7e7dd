"""The formats of a report: the same content, hostile names as text, and a limited size."""

import base64
import hashlib
import json
import re
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tagsync.audit.queries import Audit
from tagsync.database.store import Store
from tagsync.database.verifications import Verification
from tagsync.drawing.elements import visible
from tagsync.errors import UnclearQuestion
from tagsync.report.build import MEDIA_TYPES, Format, build, format_of
from tagsync.report.collect import ask, collect
from tagsync.report.content import Report, ReportProof
from tagsync.report.document import Code, Column, Drawing, Paragraph, Table, text
from tagsync.report.html import to_html
from tagsync.report.markdown import to_markdown
from tagsync.report.shorten import shorten
from tests.support.audit import at
from tests.support.clock import FakeClock
from tests.support.reports import HOSTILE, Page, ReportOn

FORMATS: list[Format] = list(MEDIA_TYPES)
ELEMENTS = {
    *("html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "p", "code"),
    *("dl", "div", "dt", "dd", "table", "caption", "thead", "tbody", "tr", "th", "td", "pre"),
    "strong",
}
"""The elements of a report without drawings. Others could come only from a name."""

MARKDOWN = MarkdownIt("commonmark").enable("table")


def html_of(report: Report) -> Page:
    return Page(build(report, "html").decode())


def markdown_of(report: Report) -> Page:
    """Return the page that Markdown becomes, with its HTML as HTML."""
    return Page(MARKDOWN.render(build(report, "md").decode()))


def test_html_forbids_scripts_and_other_files(report_on: ReportOn) -> None:
    """The policy is in the page, permits just the page's own style, and nothing is loaded."""
    page = html_of(report_on())
    (style,) = [content for where, content in page.texts if where == "style"]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = next(
        each["content"]
        for _, each in page.elements
        if each.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert not re.search(r"url\(|@import|https?:", style)
    assert [tag for tag, _ in page.elements[:4]] == ["html", "head", "meta", "meta"]
    assert not page.attributes("src")
    assert not page.attributes("style")


def test_hostile_names_stay_text_in_html(report_on: ReportOn) -> None:
    """Each name is the whole text of a code element, and adds no element and no attribute."""
    page = html_of(report_on())
    assert {visible(name) for name in HOSTILE} <= set(page.codes)
    assert page.tags() == ELEMENTS - {"strong"}
    assert not [name for _, each in page.elements for name in each if name.startswith("on")]


def test_hostile_names_stay_text_in_markdown(report_on: ReportOn) -> None:
    """Each name is code, but for vertical bars, and adds no element, link, row or cell."""
    page = markdown_of(report_on())
    in_cells = {visible(name).replace("|", "\\x7c") for name in HOSTILE}
    assert in_cells <= set(page.codes)
    plain = markdown_of(report_on("swr/team/api:latest"))
    assert page.tags() == plain.tags()
    assert not {"a", "img", "script", "em", "del"} & page.tags()
    assert page.attributes("href") == []


def test_hostile_names_stay_text_in_json(report_on: ReportOn) -> None:
    """The JSON is ASCII and has each name exactly."""
    written = build(report_on(), "json")
    assert written.isascii()
    assert set(HOSTILE) <= {answer["tag"] for answer in json.loads(written)["answers"]}


NAMES = st.text(st.sampled_from("`|\\ a*_<>[]()!&#~:/w.\n\x1b1-+=@"), max_size=12) | st.text()


@given(NAMES)
@example("a`")
@example("``|``")
@example("\\|")
def test_any_name_is_one_cell_of_code_in_markdown(name: str) -> None:
    """Whatever a name is, its row has two cells, of which the first is the name as code."""
    table = Table(text(), (Column("Tag"), Column("Next")), ((text(Code(name)), text("next")),))
    page = Page(MARKDOWN.render(to_markdown((Paragraph(text("Tag ", Code(name))), table))))
    shown = visible(name) or "(empty)"
    assert page.codes == [shown, shown.replace("|", "\\x7c")]
    assert [content for where, content in page.texts if where == "td"] == ["next"]


@given(NAMES)
@example("<b>")
@example('"><b>')
def test_any_name_is_text_in_html(name: str) -> None:
    """Whatever a name is, the page has it as the text of one code element, or of an attribute."""
    table = Table(text("caption"), (Column(name),), ((text("cell"),),))
    page = Page(to_html((Paragraph(text("Tag ", Code(name))), table), name))
    assert page.codes == [visible(name) or "(empty)"]
    assert page.attributes("data-label") == [visible(name)]
    assert page.tags() <= ELEMENTS


@given(NAMES)
@example("1. one")
@example("- one")
@example("# one")
@example("a\n===")
@example("&lt;")
def test_plain_texts_are_no_markup_in_markdown(words: str) -> None:
    """A sentence of tagsync is a paragraph with exactly this text."""
    sentence = f"x{words}".strip()[1:].strip() or "x"
    page = Page(MARKDOWN.render(to_markdown((Paragraph(text(sentence)),))))
    assert page.tags() == {"p"}
    assert "".join(content for where, content in page.texts if where == "p") == visible(sentence)


@pytest.mark.parametrize("output_format", FORMATS)
def test_the_same_record_gives_the_same_bytes(output_format: Format, report_on: ReportOn) -> None:
    """Two reports differ only in the time at which they were made."""
    first, again, later = (
        build(report_on(made_at=made_at), output_format).decode() for made_at in (500, 500, 60_000)
    )
    assert first == again
    moments = [at(500), at(60_000)]
    shown = [each[:19].replace("T", " ") for each in moments]
    for old, new in (moments, shown):
        first = first.replace(old, new)
    assert first == later


@pytest.mark.parametrize("output_format", FORMATS)
def test_a_report_is_shortened_until_it_is_small_enough(
    output_format: Format, report_on: ReportOn
) -> None:
    """A list that is cut says so, how much of it is there, and which command gives all."""
    report = report_on()
    whole = len(build(report, output_format))
    written = build(report, output_format, max_size=whole - 100)
    assert len(written) < whole
    command = "tagsync log swr/team/api --no-baseline --format json"
    if output_format == "json":
        cut = {each["name"]: each for each in json.loads(written)["lists"]}["changes"]
        assert (cut["shown"], cut["total"], cut["command"]) == (2, 4, command)
    else:
        page = Page(
            written.decode() if output_format == "html" else MARKDOWN.render(written.decode())
        )
        assert command in page.codes
        assert "it has the newest 2 of 4 changes" in "".join(words for _, words in page.texts)


def test_drawings_are_left_out_last(report_on: ReportOn) -> None:
    """Drawings stay as long as lists can be shortened; a report without room is refused."""
    report = report_on()
    drawing = Drawing(f"<svg><desc>{'x' * 5000}</desc></svg>", text("The lanes"))
    least = report
    while (shorter := shorten(least)) != least:
        least = shorter
    smallest = len(build(least, "html", [drawing]))
    assert b"<svg>" in build(report, "html", [drawing], max_size=smallest)
    assert b"<svg>" not in build(report, "html", [drawing], max_size=smallest - 1)
    with pytest.raises(UnclearQuestion, match="narrow the pattern"):
        build(report, "html", max_size=1000)


def test_a_fault_comes_before_everything_else(report_on: ReportOn) -> None:
    """If a check found a fault, the first sentence says not to rely on the report."""
    words = "1 of 8 checks found a fault (chain)."
    proof = ReportProof([], fault=True, conclusion=words)
    for page in (html_of(report_on(proof=proof)), markdown_of(report_on(proof=proof))):
        shown = " ".join(content for _, content in page.texts)
        assert shown.index("Do not rely on this report") < shown.index("Question")
        assert words in shown


def test_it_has_the_last_recorded_verification_and_its_age(
    report_on: ReportOn, record: Path, tmp_path: Path
) -> None:
    """The verification that the daemon recorded is shown with its age, and a fault comes first."""
    path = tmp_path / "tagsync.db"
    shutil.copy(record, path)
    assert report_on().verification is None
    head = "ab" * 32
    for minute, result, detail in ((200, "ok", None), (260, "fault", "chain: <change 3>")):
        with Store.open(path) as store:
            verification = Verification(at(minute), result, 1.5, detail, 17, head)  # type: ignore[arg-type]
            store.record_verification(verification)
        with Audit.open(path) as audit:
            now = FakeClock().now + timedelta(minutes=320)
            page = html_of(collect(audit, ask("swr/team/api", None, None), now))
        shown = " ".join(words for _, words in page.texts)
        age = {"ok": "2 h", "fault": "1 h"}[result]
        assert f"{age} before this report" in shown
        assert {head, *([detail] if detail else [])} <= set(page.codes)
    assert shown.index("found a fault") < shown.index("Question")


def test_json_has_the_form_of_its_type(report_on: ReportOn) -> None:
    """The JSON can be read back as the same report."""
    report = report_on()
    assert msgspec.json.decode(build(report, "json"), type=Report) == _normal(report)


def _normal(report: Report) -> Any:
    return msgspec.convert(msgspec.to_builtins(report), Report)


@pytest.mark.parametrize(
    ("name", "expected"), [("a.html", "html"), ("b.c/d.MD", "md"), (".x.json", "json")]
)
def test_the_name_of_the_file_decides(name: str, expected: str) -> None:
    """The ending of the name is the format."""
    assert format_of(Path(name)) == expected

"""Read the documentation: pages, sections, fenced blocks, headings and links."""

import re

from tests.support.paths import ROOT

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def read_page(name: str) -> str:
    """Return the text of a page, such as ``README.md`` or ``docs/audit.md``."""
    return (ROOT / name).read_text()


def section(name: str, title: str) -> str:
    """Return the text below one second-level heading of a page, up to the next one."""
    _, found, rest = read_page(name).partition(f"\n## {title}\n")
    assert found, f"{name} has no section {title!r}"
    return rest.partition("\n## ")[0]


def fenced_blocks(text: str, language: str) -> list[str]:
    """Return the content of each fenced block in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Return the fragment under which each heading can be linked, as GitHub derives it."""
    found: list[str] = []
    for title in re.findall(r"^#+ (.+)$", _without_blocks(text), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        used = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other) is not None for other in found)
        found.append(f"{slug}-{used}" if used else slug)
    return set(found)


def links(text: str) -> list[str]:
    """Return the target of each link and picture, inline or in a reference definition."""
    prose = re.sub(r"`[^`]*`", "", _without_blocks(text))
    inline = re.findall(r"\]\(([^)\s]*)[^)]*\)", prose)
    return inline + re.findall(r"^\[[^\]]+\]:\s*(\S+)", prose, re.MULTILINE)


def _without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)

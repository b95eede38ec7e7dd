"""Pure: a terminal's text with colours as an SVG, which needs nothing from the network."""

import io
from typing import Final

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

_FORMAT: Final = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
font-size: {char_height}px;
line-height: {line_height}px;
}}
.{unique_id}-title {{ font-size: 18px; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""Rich's own format loads fonts from the network."""

_THEME: Final = TerminalTheme(
    (22, 27, 34),
    (201, 209, 217),
    [
        *((72, 79, 88), (255, 123, 114), (86, 211, 100), (227, 179, 65)),
        *((121, 192, 255), (210, 168, 255), (86, 212, 221), (201, 209, 217)),
    ],
    [
        *((110, 118, 129), (255, 161, 152), (126, 231, 135), (242, 204, 96)),
        *((165, 214, 255), (226, 197, 255), (179, 240, 255), (240, 246, 252)),
    ],
)
"""Colours with enough contrast on their own dark background, also on a light page."""


def to_svg(name: str, title: str, text: str, width: int) -> str:
    """Return a picture of a terminal.

    Args:
        name: A name that no other picture on the same page has.
        title: The title of the window.
        text: Lines with escape sequences of colours.
        width: Width of the terminal in cells.
    """
    console = Console(
        file=io.StringIO(),
        record=True,
        width=width,
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
        _environ={},
    )
    console.print(Text.from_ansi(text), end="", no_wrap=True, crop=False, highlight=False)
    svg = console.export_svg(title=title, theme=_THEME, code_format=_FORMAT, unique_id=name)
    return "".join(f"{line.strip()}\n" for line in svg.splitlines() if line.strip())

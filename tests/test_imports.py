"""The import rule: imports go down the levels, never sideways and never up."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import tagsync
from tests.support.paths import ROOT

PACKAGE = Path(tagsync.__file__).parent

LEVELS: tuple[set[str], ...] = (
    {"cli"},
    {"web"},
    {"api", "config", "daemon", "report"},
    {"polling", "audit", "drawing", "notify"},
    {"database", "registries"},
    {"emulator", "log", "manifests", "schedule"},
    {"escaping"},
    {"clock", "errors", "journal", "models", "permissions", "secrets"},
)
"""The packages and modules of each level, the highest first."""

MAY_USE_ITS_LEVEL = {"emulator"}
"""Uses the single modules, and only the command line and tests may use it."""

ENTRY_POINTS = {"__main__", "__init__"}
"""Import what they start or offer. `tagsync/__init__.py` does so only when it is used."""

ONLY_IN: dict[str, set[str]] = {
    "httpx": {"registries", "notify"},
    "httpcore": {"registries"},
    "sqlite_utils": {"database"},
    # Datasette hands its connections to the web pages, and expects sqlite3's errors from them.
    "sqlite3": {"database", "web"},
    "apscheduler": {"daemon"},
    "prometheus_client": {"daemon"},
    "cronsim": {"config", "schedule"},
    "click": {"cli"},
    "rich": {"cli"},
    "datasette": {"web"},
    "uvicorn": {"web"},
    "apprise": {"notify"},
}
"""For each library that has one place, that place."""


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part_of(source: Path) -> str:
    return source.relative_to(PACKAGE).with_suffix("").parts[0]


def level_of(part: str) -> int:
    (level,) = (number for number, parts in enumerate(LEVELS) if part in parts)
    return level


@cache
def imports(source: Path) -> frozenset[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


@pytest.mark.parametrize("source", sources(), ids=str)
def test_imports_go_down(source: Path) -> None:
    """Each part of tagsync imports only itself and parts of lower levels."""
    part = part_of(source)
    if part in ENTRY_POINTS:
        return
    used = {name.split(".")[1] for name in imports(source) if name.startswith("tagsync.")} - {part}
    sideways = level_of(part) if part in MAY_USE_ITS_LEVEL else level_of(part) + 1
    assert all(level_of(other) >= sideways for other in used), used


@pytest.mark.parametrize("source", sources(), ids=str)
def test_the_emulator_is_used_by_the_command_line_only(source: Path) -> None:
    """Only the command line, for its demonstration, imports the emulator."""
    if part_of(source) in {"cli", "emulator", *ENTRY_POINTS}:
        return
    assert not {name for name in imports(source) if name.startswith("tagsync.emulator")}


@pytest.mark.parametrize("source", sources(), ids=str)
def test_imports_are_statements(source: Path) -> None:
    """Modules are imported by statements that name them, so that the rule above sees them.

    Only the command line imports its commands by name, when they are used.
    """
    if source.relative_to(PACKAGE) == Path("cli/__init__.py"):
        return
    assert not imports(source) & {"tagsync", "importlib"}
    assert "__import__" not in source.read_text()


@pytest.mark.parametrize("source", sources(), ids=str)
def test_libraries_stay_where_they_belong(source: Path) -> None:
    """A library that one part wraps is not used around it."""
    roots = {name.split(".")[0] for name in imports(source)}
    misplaced = {name for name in roots & ONLY_IN.keys() if part_of(source) not in ONLY_IN[name]}
    assert not misplaced


def test_no_test_module_is_imported() -> None:
    """Shared helpers are in tests/support, not in a test module or a conftest.py."""
    tests = sorted((ROOT / "tests").rglob("*.py"))
    used = {name for source in tests for name in imports(source) if name.startswith("tests.")}
    assert not {name for name in used if re.search(r"\.(test_|conftest\b)", name)}

"""The rule of who may import whom, read from the sources."""

import ast
from pathlib import Path

import pytest

import tagsync

PACKAGE = Path(tagsync.__file__).parent

BASE = {"models", "errors"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "models": {"errors"},
    "chain": set(),
    "config": BASE,
    "schedule": BASE,
    "diff": BASE,
    "log": {"terminal"},
    "terminal": set(),
    "parts": set(),
    "history": set(),
    "rows": set(),
    "schema": BASE | {"parts", "rows"},
    "database": BASE | {"schema"},
    "findings": BASE | {"parts"},
    "ledger": BASE | {"database", "schema", "chain", "findings", "parts", "rows"},
    "store": BASE | {"database", "findings", "ledger"},
    "audit": BASE | {"database", "schema", "history", "find", "verify", "schedule"},
    "find": BASE | {"database", "schema", "parts"},
    "verify": BASE | {"database", "schema", "chain", "parts", "registries"},
    "registries": BASE | {"registries"},
    "sync": BASE | {"registries", "store", "findings", "diff"},
    "systemd": set(),
    "metrics": BASE | {"sync", "terminal"},
    "daemon": BASE | {"registries", "store", "sync", "schedule", "metrics", "systemd"},
    "emulator": BASE,
    "questions": set(),
    "spreadsheet": set(),
    "web": BASE | {"audit", "database", "terminal", "questions", "spreadsheet", "web"},
}
"""For each part of tagsync, the parts that it may import; the command line may import all."""

ONLY_IN: dict[str, set[str]] = {
    "httpx": {"registries"},
    "httpcore": {"registries"},
    "sqlite_utils": {"schema"},
    "sqlite3": {"rows", "schema", "database", "audit", "find", "verify"},
    "apscheduler": {"daemon"},
    "prometheus_client": {"metrics"},
    "cronsim": {"config", "schedule"},
    "click": {"cli"},
    "rich": {"cli"},
    "datasette": {"web"},
    "uvicorn": {"web"},
}
"""For each library that has one place, that place."""


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part_of(source: Path) -> str:
    return source.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(source: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("source", sources(), ids=str)
def test_each_part_imports_only_what_it_may(source: Path) -> None:
    """No part of tagsync imports a part that it should not know of."""
    part = part_of(source)
    if part in {"cli", "__main__", "__init__"}:
        return
    ours = {name.split(".")[1] for name in imports(source) if name.startswith("tagsync.")}
    assert ours <= ALLOWED[part] | {part}


@pytest.mark.parametrize("source", sources(), ids=str)
def test_libraries_stay_where_they_belong(source: Path) -> None:
    """A library that one place wraps is not used around it."""
    roots = {name.split(".")[0] for name in imports(source)}
    misplaced = {name for name in roots & ONLY_IN.keys() if part_of(source) not in ONLY_IN[name]}
    assert not misplaced

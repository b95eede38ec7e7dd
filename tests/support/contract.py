"""The contract for machines: schemas and tables of fields, made from the types of the rows.

``python -m tests.support.contract`` writes them to ``docs/schemas`` and ``docs/output.md``.
"""

import inspect
import json
from types import GenericAlias
from typing import Any, Final

import msgspec

from tagsync.audit import rows
from tagsync.cli.rows import (
    CheckRow,
    NotifyPreviewRow,
    NotifyStatusRow,
    SyncDryRunRow,
    SyncRow,
)
from tagsync.report.content import Report
from tests.support.documents import read_page
from tests.support.paths import ROOT

OUTPUTS: Final[dict[str, type[msgspec.Struct]]] = {
    "status": rows.StatusRow,
    "tags": rows.TagsRow,
    "tags --at": rows.TagsAtRow,
    "log": rows.LogRow,
    "log --immutable": rows.ImmutableLogRow,
    "diff": rows.DiffRow,
    "find": rows.FindRow,
    "find --summary": rows.FindSummaryRow,
    "coverage": rows.CoverageRow,
    "coverage --summary": rows.CoverageSummaryRow,
    "verify": rows.VerifyRow,
    "head": rows.HeadRow,
    "backup": rows.HeadRow,
    "sync": SyncRow,
    "sync --dry-run": SyncDryRunRow,
    "check": CheckRow,
    "notify preview": NotifyPreviewRow,
    "notify status": NotifyStatusRow,
}
"""Each command with rows, and the options that give them another type."""

DOCUMENTS: Final[dict[str, type[msgspec.Struct]]] = {"report": Report}
"""Each command that writes one JSON object into a file."""

TYPES: Final = {**OUTPUTS, **DOCUMENTS}
"""The type of each schema."""

SCHEMAS: Final = ROOT / "docs" / "schemas"
PAGE: Final = "docs/output.md"
REGENERATE: Final = "run python -m tests.support.contract"
_BEGIN: Final = "\n### Rows of `status`\n"


def file_name(command: str) -> str:
    """Return the name of the schema of a command."""
    return f"{command.replace(' --', '-').replace(' ', '-')}.json"


def schema_of(command: str) -> dict[str, Any]:
    """Return the JSON Schema of what a command prints with ``--format json``, or writes."""
    if command in DOCUMENTS:
        title, description = f"tagsync {command} -o FILE.json", "The content of the file."
        schema = msgspec.json.schema(DOCUMENTS[command])
    else:
        title = f"tagsync {command} --format json"
        description = "The rows of the command. With --format jsonl, each line is one item."
        schema = msgspec.json.schema(GenericAlias(list, (OUTPUTS[command],)))
    for definition in schema["$defs"].values():
        definition["description"] = " ".join(inspect.cleandoc(definition["description"]).split())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "description": description,
        **schema,
    }


def schema_text(command: str) -> str:
    """Return the schema of a command as its file has it."""
    return json.dumps(schema_of(command), indent=2, ensure_ascii=False) + "\n"


def tables() -> str:
    """Return the part of the page that describes the rows of each command."""
    return "".join(map(_description, TYPES))


def tables_in_page() -> str:
    """Return this part as the page has it."""
    _, begin, rest = read_page(PAGE).partition(_BEGIN)
    return begin + rest


def _description(command: str) -> str:
    definitions = schema_of(command)["$defs"]
    name = TYPES[command].__name__
    title = f"### The JSON of `{command}`" if command in DOCUMENTS else f"### Rows of `{command}`"
    text = f"\n{title}\n\n{_about(command)}\n\n{_table(definitions.pop(name))}"
    described = {kind.__name__ for kind in OUTPUTS.values()}
    for name, definition in definitions.items():
        if name not in described:
            text += f"\n{definition['description']}\n\n{_table(definition)}"
    return text


def _about(command: str) -> str:
    """Return the docstring of the type, and a link to the schema."""
    path = f"schemas/{file_name(command)}"
    text = str(inspect.getdoc(TYPES[command])).replace("``", "`")
    return f"{text}\n[JSON Schema]({path})"


def _table(definition: dict[str, Any]) -> str:
    lines = ["| field | type | meaning |", "|---|---|---|"]
    lines += [
        f"| `{name}` | {_listed(_type_words(field))} | {field['description']} |"
        for name, field in definition["properties"].items()
    ]
    return "".join(f"{line}\n" for line in lines)


def _type_words(field: dict[str, Any]) -> list[str]:
    if "anyOf" in field:
        return [word for each in field["anyOf"] for word in _type_words(each)]
    if "enum" in field:
        return [f"`{value}`" for value in field["enum"]]
    if field.get("format") == "date-time":
        return ["time"]
    if "$ref" in field:
        return ["object"]
    words = {"boolean": ["true", "false"], "array": ["list"]}
    return words.get(field["type"], [str(field["type"])])


def _listed(words: list[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def write() -> None:
    """Write the schemas and the tables."""
    SCHEMAS.mkdir(exist_ok=True)
    for path in SCHEMAS.glob("*.json"):
        path.unlink()
    for command in TYPES:
        (SCHEMAS / file_name(command)).write_text(schema_text(command))
    (ROOT / PAGE).write_text(read_page(PAGE).partition(_BEGIN)[0] + tables())


if __name__ == "__main__":
    write()

"""The documented contract for machines is that of the types of the rows."""

import sys
from pathlib import Path

import pytest

from tests.support.command_tree import all_commands
from tests.support.commands import run_command, tagsync
from tests.support.contract import (
    OUTPUTS,
    PAGE,
    REGENERATE,
    SCHEMAS,
    TYPES,
    file_name,
    schema_of,
    schema_text,
    tables,
    tables_in_page,
)
from tests.support.documents import fenced_blocks, section


def test_each_schema_is_that_of_the_type() -> None:
    """Each file in docs/schemas is made from the type of its rows, and none is left over."""
    files = {path.name: path.read_text() for path in SCHEMAS.iterdir()}
    assert files == {file_name(command): schema_text(command) for command in TYPES}, REGENERATE


def test_the_page_describes_each_field() -> None:
    """The tables of fields in the page on output are made from the types."""
    assert tables_in_page() == tables(), REGENERATE


def test_each_command_with_rows_has_a_schema() -> None:
    """Each command that prints rows as data has a schema."""
    commands = {
        words
        for words, command in all_commands().items()
        if any("jsonl" in getattr(parameter.type, "choices", ()) for parameter in command.params)
    }
    assert {words.partition(" --")[0] for words in OUTPUTS} == commands


@pytest.mark.parametrize("command", TYPES)
def test_each_field_is_explained(command: str) -> None:
    """Each field is required, has a description, and says what null means if it may be null."""
    for definition in schema_of(command)["$defs"].values():
        assert definition["description"]
        assert definition["required"] == list(definition["properties"])
        for field in definition["properties"].values():
            may_be_null = {"type": "null"} in field.get("anyOf", ())
            assert ("null" in field["description"]) == may_be_null, field


def test_fields_may_be_added() -> None:
    """No schema and no type refuses a field that it does not know."""
    for command, kind in TYPES.items():
        assert "additionalProperties" not in schema_of(command)["$defs"][kind.__name__]
        assert not kind.__struct_config__.forbid_unknown_fields
    assert "Fields are only added." in section(PAGE, "JSON, JSON lines and CSV")


@pytest.mark.processes
def test_the_example_in_python_prints_what_is_shown(tmp_path: Path) -> None:
    """The example of `tagsync.open` prints what the page shows, after the demo."""
    text = section(PAGE, "JSON, JSON lines and CSV")
    (script,), (shown,) = fenced_blocks(text, "python"), fenced_blocks(text, "console")
    tagsync("demo", cwd=tmp_path)
    finished = run_command([sys.executable, "-W", "error", "-c", script], tmp_path)
    assert (finished.stdout, finished.stderr) == (shown, "")


def test_the_columns_are_the_agreed_ones() -> None:
    """The fields of each command, in their order; other programs rely on them."""
    assert {
        command: " ".join(kind.__struct_encode_fields__) for command, kind in OUTPUTS.items()
    } == {
        "status": "repository last_complete_at tags outcome failures last_error stale distrust",
        "tags": TAGS,
        "tags --at": f"{TAGS} present {UNSURE}",
        "log": LOG,
        "log --immutable": f"{LOG} violation previous_digest pattern accepted_at accepted_by"
        " reason",
        "diff": f"repository tag kind old_digest new_digest fields {UNSURE}",
        "find": "query repository tag role digest platform not_before valid_from still_at valid_to",
        "find --summary": "query role tags_now tags_ever repositories",
        "coverage": "repository from to seconds state polls detail",
        "coverage --summary": "repository from to seconds looking_seconds percent"
        " longest_gap_seconds longest_gap_from longest_gap_to",
        "verify": "check rows result detail",
        "head": "chain id hash",
        "backup": "chain id hash",
        "sync": SYNC,
        "sync --dry-run": f"{SYNC} dry_run changes",
        "check": "subject result detail advice",
        "notify preview": "destination first_event last_event events at subject text",
        "notify status": "destination kind cursor newest waiting sending sequence failures"
        " failing_since last_error retry_at last_accepted_at lease_holder",
    }


LOG = "id observed_at not_before repository tag kind moved old_digest new_digest fields hash"
TAGS = "repository tag digest image_id size updated changed_at"
UNSURE = "certainty unsure_from unsure_until"
SYNC = "repository outcome tags added updated deleted detail"

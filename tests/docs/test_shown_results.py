"""The results that the documentation shows are those that tagsync prints."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tagsync.emulator import Emulator
from tests.support.commands import configure, tagsync
from tests.support.documents import fenced_blocks, read_page

pytestmark = pytest.mark.processes

WIDTH = "100"
UNREACHABLE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Emulator]]:
    """A folder with a recorded registry, which has changed since."""
    folder = tmp_path_factory.mktemp("shown")
    with Emulator() as swr:
        for number in range(3):
            swr.push("team-a/api", f"v{number}", str(number))
            swr.push("team-a/web", f"v{number}", str(number))
        hub = (
            f'[[registries]]\nname = "hub"\nkind = "oci"\nendpoint = "{UNREACHABLE}"\n'
            'retry_for = "100ms"\n[[registries.watch]]\n'
            f"repositories = {[f'library/{name}' for name in ('alpine', 'busybox', 'debian')]}\n"
        )
        configure(folder, swr.url, "team-a/api", "team-a/web")
        with (folder / "config.toml").open("a") as config:
            config.write(hub)
        assert tagsync("sync", cwd=folder).returncode == 1
        swr.push("team-a/api", "v1", "2")
        swr.push("team-a/api", "v3", "3")
        swr.delete("team-a/api", "v0")
        yield folder, swr


def normalized(text: str) -> str:
    """Return a text in which times, durations and hashes are the same in every run."""
    text = re.sub(r"\b[0-9a-f]{64}\b", "HASH", text)
    # The number of tables, indexes, views and triggers is not what the page is about.
    text = re.sub(r"^schema +\d+", "schema", text, flags=re.MULTILINE)
    text = re.sub(r"\b\d{4}-\d\d-\d\d \d\d:\d\d\b", "TIME", text)
    return re.sub(r"\b\d+\.\d s\b", "SECONDS", text)


def shown(page: str) -> list[str]:
    return [normalized(block) for block in fenced_blocks(read_page(page), "text")]


def printed(folder: Path, *arguments: str) -> str:
    return tagsync(*arguments, cwd=folder, COLUMNS=WIDTH).stdout


def test_shown_passes_are_real(recorded: tuple[Path, Emulator]) -> None:
    """The page on output shows a pass and a dry run as they are."""
    folder, _ = recorded
    dry_run = printed(folder, "sync", "--dry-run")
    real = printed(folder, "sync")
    assert [normalized(real), normalized(dry_run)] == shown("docs/output.md")


def test_shown_verification_is_real(tmp_path: Path) -> None:
    """The page on the audit shows the verification of the record of the demo as it is."""
    tagsync("demo", cwd=tmp_path)
    verification = printed(tmp_path, "--config", "tagsync-demo/config.toml", "verify")
    assert [normalized(verification)] == shown("docs/audit.md")


def test_the_shown_report_is_real(tmp_path: Path) -> None:
    """The page on the audit shows a part of the report on the demo as it is."""
    tagsync("demo", cwd=tmp_path)
    arguments = ("report", "demo/team-a/api:latest", "-o", "ticket.md")
    printed(tmp_path, "--config", "tagsync-demo/config.toml", *arguments)
    written = normalized((tmp_path / "ticket.md").read_text())
    (part,) = fenced_blocks(read_page("docs/audit.md"), "markdown")
    times = re.compile(r"TIME:\d\d")
    assert times.sub("TIME", normalized(part)) in times.sub("TIME", written)

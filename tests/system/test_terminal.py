"""The commands on terminals of several widths, over a generated record, and the pager."""

import fcntl
import os
import pty
import struct
import subprocess
import termios
from pathlib import Path
from random import Random

import pytest

from tagsync.database.outcomes import Failed
from tagsync.database.store import Store
from tagsync.errors import Unreachable
from tagsync.models import Image, Repository, Tag
from tagsync.polling.jobs import Job
from tests.support.clock import FakeClock
from tests.support.commands import command, configure, environment, read_terminal, tagsync
from tests.support.record import query, record
from tests.support.registries import INTERVAL, Scripted
from tests.support.terminals import LETTERS, WIDTHS, measured, plain

pytestmark = pytest.mark.processes

FAILURE = "the registry refuses the login, because the token has expired; " * 3

COMMANDS = (
    *("status --all", "tags", "tags --at {then}", "log --baseline", "log --moved", "log --full"),
    *("diff * --from {then}", "find {digest}", "find {digest} {other} abcdef", "coverage"),
    *("coverage --until now --longer-than 1m", "find {digest} --summary", "tags --full --local"),
)


def name(random: Random, longest: int) -> str:
    """Return a name of up to this many cells, which begins and ends with a letter."""
    text = "".join(random.choice(LETTERS) for _ in range(random.randint(1, longest)))
    while measured(text) > max(longest - 2, 0):
        text = text[:-1]
    return f"n{text}n"[:longest]


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record of twelve repositories, of names of 1 to 255 and tags of 1 to 128 cells."""
    folder = tmp_path_factory.mktemp("terminal")
    random, clock = Random(7), FakeClock()
    longest = (1, 30, 56, 56, 56, 56, 80, 120, 160, 200, 240, 251)
    names = {
        f"{number:x}{name(random, cells)}"[:cells]: cells for number, cells in enumerate(longest)
    }
    configure(folder, "http://127.0.0.1:9", "[0-9a]*")
    with Store.open(folder / "tagsync.db") as store:
        for repository, cells in names.items():
            job = Job(Repository("swr", repository), Scripted(clock), INTERVAL)
            tags = [name(random, 40 if cells <= 56 else 128) for _ in range(4)]
            for turn in range(3):
                clock.advance(minutes=5)
                listed = {tag: Tag(tag, digest(9 + turn * n)) for n, tag in enumerate(tags[turn:])}
                images = {tag.digest: Image(tag.digest) for tag in listed.values() if tag.digest}
                record(store, job, clock, listed, images)
        failed = Failed(Unreachable(FAILURE), "2026-05-03T16:00:00.000Z")
        store.record(job.repository, failed, store.state(job.repository), INTERVAL)
    return folder


@pytest.fixture(scope="module")
def words(folder: Path) -> dict[str, str]:
    """The values that the commands are filled with."""
    ((then,),) = query(
        folder / "tagsync.db",
        "SELECT not_before FROM changes WHERE not_before > '' ORDER BY id LIMIT 1 OFFSET 20",
    )
    return {"then": then, "digest": digest(9), "other": digest(10)}


def on_terminal(arguments: list[str], cwd: Path, width: int, **variables: str) -> list[str]:
    """Return the lines that a command prints on a terminal of this width."""
    end, other_end = pty.openpty()
    try:
        fcntl.ioctl(other_end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        process = subprocess.Popen(
            command(*arguments),
            cwd=cwd,
            env=environment(TERM="xterm-256color", **variables),
            stdin=other_end,
            stdout=other_end,
            stderr=subprocess.PIPE,
        )
        os.close(other_end)
        shown = read_terminal(end)
        _, errors = process.communicate(timeout=30)
    finally:
        os.close(end)
    assert process.returncode == 0, errors
    return shown.replace("\r\n", "\n").splitlines()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("shape", COMMANDS)
def test_each_command_keeps_the_rules_on_a_terminal(
    shape: str, width: int, folder: Path, words: dict[str, str]
) -> None:
    """On a terminal no line is too wide, and each repository and tag is there as a whole."""
    arguments = [part.format(**words) for part in shape.split()]
    lines = [plain(line) for line in on_terminal(["--no-pager", *arguments], folder, width)]
    assert max(map(measured, lines)) <= width
    text = "".join(line.strip() for line in lines)
    finished = tagsync("--no-pager", *arguments, cwd=folder, COLUMNS=str(width))
    assert [line.rstrip() for line in lines] == finished.stdout.splitlines()
    if shape in {"tags", "log --baseline", "log --full", "tags --full --local"}:
        known = query(folder / "tagsync.db", "SELECT repository, tag FROM current_tags")
        assert all(repository in text and tag in text for repository, tag in known)


def test_rows_with_names_of_usual_length_take_two_lines(folder: Path) -> None:
    """Repositories of 60 and tags of 40 cells take two lines on 80 columns."""
    usual = query(
        folder / "tagsync.db",
        "SELECT repository, count(*) FROM change_log WHERE repository GLOB 'swr/[0-5]*'"
        " GROUP BY repository",
    )
    assert len(usual) == 6
    for repository, changes in usual:
        lines = on_terminal(["--no-pager", "log", repository, "--baseline"], folder, 80)
        assert len(lines) <= 2 * changes + 1


def test_heads_are_below_their_chains(folder: Path) -> None:
    """On 80 columns each head is a line of its own, below the name of its chain."""
    title, hashes, changes, head, observations, other = on_terminal(["head"], folder, 80)
    assert (title.split(), hashes.split()) == (["chain", "id"], ["hash"])
    assert [changes.split()[0], observations.split()[0]] == ["changes", "observations"]
    assert [len(line.strip()) for line in (head, other)] == [64, 64]


def test_colour_has_a_meaning_only_on_a_terminal(folder: Path) -> None:
    """There is colour on a terminal, unless it is refused, and elsewhere only if forced."""
    asked = ["--no-pager", "log", "--moved"]
    assert any("\x1b[33mmoved" in line for line in on_terminal(asked, folder, 120))
    for variables in ({"NO_COLOR": "1"}, {"TAGSYNC_COLOR": "never"}):
        assert "\x1b" not in "".join(on_terminal(asked, folder, 120, **variables))
    assert "\x1b" not in tagsync(*asked, cwd=folder).stdout
    assert "\x1b[33mmoved" in tagsync(*asked, cwd=folder, FORCE_COLOR="1").stdout
    assert "\x1b[33mmoved" in tagsync("--color", "always", *asked, cwd=folder).stdout


# --- the pager -----------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["TAGSYNC_PAGER", "PAGER"])
@pytest.mark.parametrize("arguments", ["status", "tags", "log", "coverage", "find abcdef"])
def test_pager_gets_the_result(variable: str, arguments: str, folder: Path) -> None:
    """On a terminal the pager of the environment gets the whole result."""
    pager = {variable: "sed s/^/paged:/"}
    paged = on_terminal(arguments.split(), folder, 120, **pager)
    direct = on_terminal(["--no-pager", *arguments.split()], folder, 120, **pager)
    assert [f"paged:{line}" for line in direct] == paged
    assert not any("paged:" in line for line in direct)
    assert "paged:" not in tagsync(*arguments.split(), cwd=folder, **pager).stdout


@pytest.mark.parametrize("pager", ["true", "head -n 1"])
def test_pager_that_ends_early_is_no_error(pager: str, folder: Path) -> None:
    """A pager that does not read everything causes no error and no message."""
    lines = on_terminal(["log", "--baseline", "--format", "json"], folder, 80, PAGER=pager)
    assert len(lines) <= 1


@pytest.mark.parametrize("pager", ["", "cat", "no-such-program-here", "'unclosed"])
def test_without_a_pager_the_result_is_printed(pager: str, folder: Path) -> None:
    """If the pager is empty or cannot be started, the result goes to the terminal."""
    assert on_terminal(["log"], folder, 80, PAGER=pager, TAGSYNC_PAGER=pager)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"LC_ALL": "C"}, "FRX utf-8"),
        ({"PYTHONIOENCODING": "latin-1"}, "FRX"),
        ({"LESS": "R", "LESSCHARSET": "dos"}, "R dos"),
    ],
    ids=["C", "latin-1", "user"],
)
def test_less_reads_what_tagsync_writes(
    variables: dict[str, str], expected: str, folder: Path
) -> None:
    """The pager gets the encoding of the result, unless the user has chosen another one."""
    pager = "sh -c 'cat > /dev/null; echo \"$LESS $LESSCHARSET\"'"
    lines = on_terminal(["status"], folder, 80, PAGER=pager, **variables)
    assert [line.rstrip() for line in lines[:1]] == [expected]

"""Commands of tagsync as real processes, and what they print."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Finished = subprocess.CompletedProcess[str]


def environment(**variables: str) -> dict[str, str]:
    """What a process finds: nothing of tagsync's but what is given here."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, "LANG": "C.UTF-8", **variables}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "tagsync", *map(str, arguments)]


def to_its_end(arguments: list[str], cwd: Path, **variables: str) -> Finished:
    """Runs a command of any kind that leads to tagsync, off any terminal."""
    return subprocess.run(
        arguments,
        cwd=cwd,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def tagsync(*arguments: object, cwd: Path, **variables: str) -> Finished:
    """Runs tagsync to its end, off any terminal."""
    return to_its_end(command(*arguments), cwd, **variables)


def start(*arguments: object, cwd: Path, **variables: str) -> subprocess.Popen[str]:
    """Starts tagsync and goes on."""
    return subprocess.Popen(
        command(*arguments),
        cwd=cwd,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def configure(folder: Path, endpoint: str, *repositories: str, more: str = "") -> Path:
    """Writes a configuration of one registry, ``swr``, into the folder."""
    path = folder / "config.toml"
    path.write_text(
        '[store]\npath = "tagsync.db"\n'
        f'[[registries]]\nname = "swr"\nendpoint = "{endpoint}"\nretry_for = "100ms"\n{more}\n'
        f"[[registries.watch]]\nrepositories = {json.dumps(repositories)}\n"
    )
    return path


def rows_of(finished: Finished) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(finished.stdout)
    return rows


def events_of(finished: Finished) -> list[dict[str, Any]]:
    """The lines of the log, every one of which has to be JSON."""
    return [json.loads(line) for line in finished.stderr.splitlines()]


def named(events: Sequence[dict[str, Any]], prefix: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"].startswith(prefix)]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below the folder, byte for byte."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def the_sentence(finished: Finished, status: int) -> str:
    """The one line that a refused command leaves, on standard error alone."""
    assert finished.returncode == status, finished
    assert finished.stdout == ""
    assert finished.stderr.endswith("\n")
    (line,) = finished.stderr.splitlines()
    assert line.startswith("tagsync: ")
    return line


def read_terminal(descriptor: int) -> str:
    """All that was written to a pseudo-terminal whose other end is closed."""
    parts: list[bytes] = []
    while True:
        try:
            part = os.read(descriptor, 65536)
        except OSError:  # Linux's way to say that the other end is closed
            part = b""
        if not part:
            return b"".join(parts).decode()
        parts.append(part)

"""Run commands of tagsync as real processes, and parse what they print."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Finished = subprocess.CompletedProcess[str]

_TIMEOUT = 120
"""Seconds after which a command hangs. It takes about one on an idle machine."""

_WITHOUT_PRIVILEGE = [
    *("setpriv", "--bounding-set", "-dac_override,-dac_read_search"),
    *("--inh-caps", "-dac_override,-dac_read_search"),
]
"""Without these capabilities, permissions bind root like any other user."""


def environment(**variables: str) -> dict[str, str]:
    """Return a process environment without tagsync settings but those given here."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, "LANG": "C.UTF-8", **variables}


def command(*arguments: object) -> list[str]:
    """Return the argument list that runs tagsync in the current interpreter."""
    return [sys.executable, "-m", "tagsync", *map(str, arguments)]


def run_command(arguments: list[str], cwd: Path, **variables: str) -> Finished:
    """Run a command that leads to tagsync without a terminal, and wait for its exit."""
    return subprocess.run(
        arguments,
        cwd=cwd,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )


def tagsync(*arguments: object, cwd: Path, **variables: str) -> Finished:
    """Run tagsync without a terminal, and wait for its exit."""
    return run_command(command(*arguments), cwd, **variables)


def unprivileged(*arguments: object, cwd: Path, **variables: str) -> Finished:
    """Run tagsync as a user bound by permissions, even if the tests run as root."""
    prefix = _WITHOUT_PRIVILEGE if os.geteuid() == 0 else []
    return run_command([*prefix, *command(*arguments)], cwd, **variables)


def start(*arguments: object, cwd: Path, **variables: str) -> subprocess.Popen[str]:
    """Start tagsync without waiting for its exit."""
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
    """Write a configuration of one registry, ``swr``, into the folder."""
    path = folder / "config.toml"
    path.write_text(
        '[store]\npath = "tagsync.db"\n'
        f'[[registries]]\nname = "swr"\nendpoint = "{endpoint}"\nretry_for = "100ms"\n{more}\n'
        f"[[registries.watch]]\nrepositories = {json.dumps(repositories)}\n"
    )
    return path


def rows_of(finished: Finished) -> list[dict[str, Any]]:
    """Parse the rows that a command printed with ``--format json``."""
    rows: list[dict[str, Any]] = json.loads(finished.stdout)
    return rows


def events_of(finished: Finished) -> list[dict[str, Any]]:
    """Parse the log lines of a command, each of which must be JSON."""
    return [json.loads(line) for line in finished.stderr.splitlines()]


def events_named(events: Sequence[dict[str, Any]], prefix: str) -> list[dict[str, Any]]:
    """Return the events whose name begins with a prefix."""
    return [event for event in events if event["event"].startswith(prefix)]


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file below the folder."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def error_line(finished: Finished, status: int) -> str:
    """Return the only line of a failed command, which must be on standard error."""
    assert finished.returncode == status, finished
    assert finished.stdout == ""
    assert finished.stderr.endswith("\n")
    (line,) = finished.stderr.splitlines()
    assert line.startswith("tagsync: ")
    return line


def run_on_terminal(
    *arguments: object, cwd: Path, columns: int = 80, **variables: str
) -> tuple[int, str]:
    """Run tagsync on a terminal of its own; return its exit status and all that it wrote."""
    variables = {"TERM": "xterm-256color", "COLUMNS": str(columns), **variables}
    return run_program_on_terminal(command(*arguments), cwd, environment(**variables))


def run_program_on_terminal(
    arguments: Sequence[str], cwd: Path, env: Mapping[str, str]
) -> tuple[int, str]:
    """Run a program on a terminal of its own; return its exit status and all that it wrote."""
    terminal, end = pty.openpty()
    try:
        process = subprocess.Popen(arguments, cwd=cwd, env=env, stdin=end, stdout=end, stderr=end)
        os.close(end)
        written = read_terminal(terminal)
        return process.wait(_TIMEOUT), written.replace("\r\n", "\n")
    finally:
        os.close(terminal)


def screen(written: str) -> list[str]:
    """Return the lines that a terminal shows: without colours and erased lines."""
    lines = [""]
    for part in re.split(r"(\r\x1b\[2K|\n)", re.sub(r"\x1b\[[\d;]*m", "", written)):
        if part == "\n":
            lines.append("")
        elif part == "\r\x1b[2K":
            lines[-1] = ""
        else:
            lines[-1] += part
    return lines


def read_terminal(descriptor: int) -> str:
    """Read everything written to a pseudo-terminal whose other end is closed."""
    parts: list[bytes] = []
    while True:
        try:
            part = os.read(descriptor, 65536)
        except OSError:  # how Linux reports that the other end is closed
            part = b""
        if not part:
            return b"".join(parts).decode()
        parts.append(part)

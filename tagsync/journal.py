"""Priorities for systemd's journal, as sd-daemon(3) describes them.

If standard error is a stream to the journal, a line may begin with its priority: ``<3>`` is an
error. The journal removes this prefix and stores the priority, so that ``journalctl -p err`` finds
the line.
"""

import os
from collections.abc import Mapping
from typing import Final, Literal, TextIO

Level = Literal["debug", "info", "warning", "error"]

_PRIORITIES: Final[Mapping[Level, int]] = {"debug": 7, "info": 6, "warning": 4, "error": 3}


def leads_to_journal(stream: TextIO, env: Mapping[str, str]) -> bool:
    """Return whether a stream is the one that ``$JOURNAL_STREAM`` says leads to the journal."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        # The stream is closed, or it is not a file of the operating system.
        return False
    return env.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def with_priority(text: str, level: Level) -> str:
    """Return a text with the priority before each of its lines.

    The journal stores each line as an entry of its own.
    """
    return "\n".join(f"<{_PRIORITIES[level]}>{line}" for line in text.split("\n"))

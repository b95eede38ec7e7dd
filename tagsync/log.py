"""How tagsync logs: structlog's events on standard error, JSON lines off a terminal."""

import sys
from threading import Lock
from typing import Final, Literal

import stamina.instrumentation
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from tagsync.escaping import escape_control_characters

Format = Literal["auto", "console", "json"]

LEVELS: Final = ("debug", "info", "warning", "error")


class _Lines:
    """Writes lines to standard error, whatever that is at the moment: progress may replace it.

    A log on a full disk stops nobody from recording. Each of structlog's methods returns whether
    the line was written, so that who owes one to somebody can write it another time.
    """

    def __init__(self) -> None:
        self._lock = Lock()

    def msg(self, line: str) -> bool:
        with self._lock:
            try:
                sys.stderr.write(line + "\n")
                sys.stderr.flush()
            except OSError:
                return False
            return True

    debug = info = warning = error = msg


def configure(log_format: Format, level: str) -> None:
    """Sets logging up for this process.

    Args:
        log_format: ``auto`` is for people on a terminal and JSON elsewhere.
        level: one of `LEVELS`.
    """
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    render: list[Processor]
    if console:
        render = [_make_harmless, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    else:
        render = [structlog.processors.JSONRenderer()]
    lines = _Lines()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=True,
    )
    stamina.instrumentation.set_on_retry_hooks([_log_retry])


def _make_harmless(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {
        key: escape_control_characters(value) if isinstance(value, str) else value
        for key, value in event.items()
    }


def _log_retry(details: stamina.instrumentation.RetryDetails) -> None:
    structlog.get_logger().debug(
        "attempt.failed",
        error=str(details.caused_by),
        attempt=details.retry_num,
        next_in=round(details.wait_for, 3),
    )

"""Set up structlog, so that it writes events to standard error."""

import os
import sys
from collections.abc import Mapping
from threading import Lock
from typing import Final, Literal

import stamina.instrumentation
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from tagsync.escaping import escape_control_characters
from tagsync.journal import Level, leads_to_journal, with_priority

Format = Literal["auto", "console", "json"]

LEVELS: Final = ("debug", "info", "warning", "error")


class _LineLogger:
    """A logger that writes lines to standard error.

    A progress bar may replace `sys.stderr` at any time, so the logger looks it up for each line.

    A full disk must not stop tagsync from recording. If a line cannot be written, the methods
    therefore return False instead of raising an error, so that the caller can write the line again
    later.
    """

    def __init__(self, *, priorities: bool) -> None:
        self._priorities = priorities
        self._lock = Lock()

    def debug(self, line: str) -> bool:
        return self._write(line, "debug")

    def info(self, line: str) -> bool:
        return self._write(line, "info")

    def warning(self, line: str) -> bool:
        return self._write(line, "warning")

    def error(self, line: str) -> bool:
        return self._write(line, "error")

    def _write(self, line: str, level: Level) -> bool:
        if self._priorities:
            line = with_priority(line, level)
        with self._lock:
            try:
                sys.stderr.write(line + "\n")
                sys.stderr.flush()
            except OSError:
                return False
            return True


class _DropRepeatedFailures:
    """A processor that drops failed polls like an earlier one of the same registry."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._logged: set[object] = set()

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        if event["event"] != "sync.failed":
            return event
        key = (event.get("registry"), event.get("reasons"))
        with self._lock:
            if key in self._logged:
                raise structlog.DropEvent
            self._logged.add(key)
        return event


def configure(
    log_format: Format,
    level: str,
    *,
    dry_run: bool = False,
    first_failures: bool = False,
    render: Processor | None = None,
    env: Mapping[str, str] = os.environ,
) -> None:
    """Set up logging for this process.

    Args:
        log_format: ``console`` is one readable line for each event, ``json`` one JSON object.
            ``auto`` means ``console`` on a terminal, and otherwise ``json``.
        level: One of `LEVELS`. Events of a lower level are not logged.
        dry_run: Whether to mark every event with ``dry_run: true``, whichever thread logs it.
        first_failures: Whether to log only the first poll of each registry that fails for a reason.
        render: Makes the readable lines. None means one line for each event, with every field.
        env: The environment. If ``$JOURNAL_STREAM`` says that standard error leads to systemd's
            journal, each line begins with its priority, which the journal removes.
    """
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    renderers: list[Processor]
    if console:
        renderers = [
            _escape_values,
            render
            or structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    else:
        renderers = [_name_first, structlog.processors.JSONRenderer()]
    logger = _LineLogger(priorities=leads_to_journal(sys.stderr, env))
    structlog.configure(
        processors=[
            *([_DropRepeatedFailures()] if first_failures else []),
            *([_mark_dry_run] if dry_run else []),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: logger,
        cache_logger_on_first_use=True,
    )
    stamina.instrumentation.set_on_retry_hooks([_log_retry])


def _mark_dry_run(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {**event, "dry_run": True}


def _name_first(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Put the time, the level and the name of an event before its other fields."""
    return {
        "timestamp": event["timestamp"],
        "level": event["level"],
        "event": event["event"],
        **event,
    }


def _escape_values(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape control characters in all texts of an event. A traceback keeps its lines."""
    return {
        key: _escape_traceback(value) if key == "exception" else _escape(value)
        for key, value in event.items()
    }


def _escape(value: object) -> object:
    return escape_control_characters(value) if isinstance(value, str) else value


def _escape_traceback(text: str) -> str:
    # Indent each line, so that it cannot look like a line of the log.
    return "\n".join(f"    {escape_control_characters(line)}" for line in text.split("\n"))


def _log_retry(details: stamina.instrumentation.RetryDetails) -> None:
    structlog.get_logger().debug(
        "attempt.failed",
        error=str(details.caused_by),
        attempt=details.retry_num,
        next_in=round(details.wait_for, 3),
    )

"""How tagsync logs: structlog's events on standard error, JSON lines off a terminal."""

import sys
from typing import Final, Literal, TextIO

import stamina.instrumentation
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from tagsync.terminal import harmless

Format = Literal["auto", "console", "json"]

LEVELS: Final = ("debug", "info", "warning", "error")


class _Stderr:
    """Standard error as it is at the moment of writing: a progress bar replaces it for a while."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


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
    stream: TextIO = _Stderr()  # type: ignore[assignment]  # structlog writes and flushes, no more
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=True,
    )
    stamina.instrumentation.set_on_retry_hooks([_log_retry])


def _make_harmless(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {
        key: harmless(value) if isinstance(value, str) else value for key, value in event.items()
    }


def _log_retry(details: stamina.instrumentation.RetryDetails) -> None:
    structlog.get_logger().debug(
        "attempt.failed",
        error=str(details.caused_by),
        attempt=details.retry_num,
        next_in=round(details.wait_for, 3),
    )

"""Summarize polls and the events that they log."""

from typing import Any

from tagsync.polling.jobs import Poll

Events = list[dict[str, Any]]


def counts(result: Poll) -> tuple[str, int, int, int]:
    """Return the outcome of a poll, and how many tags it added, updated and deleted."""
    return result.outcome, result.added, result.updated, result.deleted


def event_names(logged: Events, prefix: str) -> list[str]:
    """Return the names of the logged events with a prefix, in order."""
    return [entry["event"] for entry in logged if entry["event"].startswith(prefix)]

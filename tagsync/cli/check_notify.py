"""The lines of the command ``check`` about the destinations of notifications."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from tagsync.audit.queries import Audit
from tagsync.cli.check_line import Line
from tagsync.cli.formats import count_text
from tagsync.clock import utc_now
from tagsync.config import Config
from tagsync.config.notify_rules import load_rule, rules_without_secrets
from tagsync.errors import ConfigError, StoreError
from tagsync.notify.status import DestinationStatus, statuses
from tagsync.notify.targets import CommandTarget, Rule


def check_destinations(config: Config, env: Mapping[str, str]) -> Iterator[Line]:
    """Yield a line for each destination, in file order. Sends nothing.

    Args:
        config: The configuration.
        env: Environment variables that secrets may refer to.
    """
    known = _statuses(config)
    for table in config.file.notify:
        subject = f"destination {table.name}"
        try:
            rule = load_rule(table, config, env)
        except ConfigError as error:
            advice = "correct the key, file or variable that the detail is about"
            yield Line(subject, "failed", str(error), advice, refused=True)
            continue
        yield (
            _check_program(subject, rule)
            or _check_filter(subject, rule, config)
            or _check_progress(subject, rule, known.get(table.name))
        )


def _check_program(subject: str, rule: Rule) -> Line | None:
    """Return a line if the program of a destination cannot be run."""
    if not isinstance(rule.target, CommandTarget):
        return None
    program = Path(rule.target.argv[0])
    if not program.is_file():
        return Line(subject, "failed", f"there is no file {program}", "install it, or correct argv")
    if not os.access(program, os.X_OK):
        advice = f"make it executable: chmod +x {program}"
        return Line(subject, "failed", f"this user cannot execute {program}", advice)
    return None


def _check_filter(subject: str, rule: Rule, config: Config) -> Line | None:
    """Return a line if a glob cannot match any repository, because of how it begins."""
    for glob in rule.repositories:
        begin = re.split(r"[*?\[]", glob, maxsplit=1)[0]
        if not any(_may_begin(begin, f"{name}/") for name in config.registries):
            detail = f"repositories: {glob!r} begins with no registry of the configuration"
            advice = "write it as registry/namespace/repository, such as 'swr/team-a/*'"
            return Line(subject, "warning", detail, advice)
    return None


def _may_begin(text: str, prefix: str) -> bool:
    return text.startswith(prefix) or prefix.startswith(text)


def _check_progress(subject: str, rule: Rule, status: DestinationStatus | None) -> Line:
    if status is not None and status.cursor is None and status.last_error is not None:
        advice = (
            f"run tagsync notify replay {rule.name} --since ID, and restore a backup if it fails"
        )
        return Line(subject, "failed", f"{rule.kind}; {status.last_error}", advice)
    if status is None or status.cursor is None:
        return Line(subject, "ok", f"{rule.kind}; it will get the events from the next pass on")
    waiting = count_text(status.waiting, "event")
    if status.failing_since is not None:
        detail = f"{rule.kind}; failing since {status.failing_since}: {status.last_error}"
        advice = f"run tagsync notify test {rule.name}"
        return Line(subject, "warning", f"{detail}; waiting: {waiting}", advice)
    return Line(subject, "ok", f"{rule.kind}; waiting: {waiting}")


def _statuses(config: Config) -> dict[str, DestinationStatus]:
    """Return how far each destination has got. Empty if the database cannot be read."""
    try:
        with Audit.open(config.database) as audit:
            found = statuses(audit.outbox, rules_without_secrets(config), utc_now())
    except StoreError:
        return {}  # The lines about the database say what is wrong with it.
    return {each.name: each for each in found}

"""Check the tables ``[[notify]]``, without their secrets."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import Final

from tagsync.config.checks import REGISTRY_NAME, TAG_GLOB
from tagsync.config.tables import NotifyTable
from tagsync.database.events import EVENT_KINDS
from tagsync.errors import ConfigError
from tagsync.notify.templates import check_template

_KEYS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "webhook": ("url", ("url", "signing_key")),
    "apprise": ("url", ("url",)),
    "command": ("argv", ("argv",)),
}
"""For each kind the key that it needs, and those of `_TARGET_KEYS` that it accepts."""

_TARGET_KEYS: Final = ("url", "argv", "signing_key")
"""The keys that say where messages go."""


def check_notifications(tables: Sequence[NotifyTable]) -> None:
    """Check the keys of all destinations.

    Raises:
        ConfigError: If a value is invalid, or two values are not compatible.
    """
    for table in tables:
        _check_name(table)
        _check_target(table)
        _check_filters(table)
        _check_templates(table)
    names = Counter(table.name for table in tables)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ConfigError(
            f"two destinations of notifications are named {twice[0]!r}: give each [[notify]] a"
            " name of its own"
        )


def _check_name(table: NotifyTable) -> None:
    if not REGISTRY_NAME.fullmatch(table.name):
        raise ConfigError(
            f"invalid name {table.name!r} of a destination under [[notify]]: write letters,"
            " digits, '.', '_' and '-', and begin with a letter or a digit"
        )


def _check_target(table: NotifyTable) -> None:
    """Check the kind, and that the keys fit to it."""
    if table.kind not in _KEYS:
        raise _refusal(table, f"there is no kind {table.kind!r}", table.kind, _KEYS)
    needed, accepted = _KEYS[table.kind]
    if getattr(table, needed) is None:
        raise _error(table, f"the key {needed!r} is missing, which kind {table.kind!r} needs")
    for key in _TARGET_KEYS:
        if key not in accepted and getattr(table, key) is not None:
            raise _error(table, f"kind {table.kind!r} has no {key}: remove the key")
    if table.argv is not None:
        _check_argv(table, table.argv)


def _check_argv(table: NotifyTable, argv: Sequence[str]) -> None:
    if not argv:
        raise _error(table, "argv is empty: name a program, such as '/usr/local/bin/page'")
    if any("\0" in argument for argument in argv):
        raise _error(table, "argv contains a NUL character, which no argument can have")
    if not PurePosixPath(argv[0]).is_absolute():
        raise _error(
            table,
            f"argv begins with {argv[0]!r}: write the absolute path of the program, because no"
            " shell searches it",
        )


def _check_filters(table: NotifyTable) -> None:
    for key in ("repositories", "tags", "events"):
        if not getattr(table, key):
            raise _error(table, f"{key} is an empty list: name some, or remove the key")
    if "" in table.repositories:
        raise _error(table, "repositories: '' matches no repository: write '*' for all")
    for glob in table.tags:
        if not TAG_GLOB.fullmatch(glob):
            raise _error(
                table,
                f"tags: {glob!r} matches no tag that can exist: a tag has letters and digits,"
                " with '_', '.' or '-' between them",
            )
    for kind in table.events:
        if kind not in EVENT_KINDS:
            raise _refusal(table, f"there is no event {kind!r}", kind, EVENT_KINDS)


def _check_templates(table: NotifyTable) -> None:
    for key in ("subject", "text"):
        template = getattr(table, key)
        if template is None:
            continue
        if not template.strip():
            raise _error(table, f"{key} is empty: write a template, or remove the key")
        try:
            check_template(key, template)
        except ConfigError as error:
            raise _error(table, str(error)) from None


def _refusal(table: NotifyTable, problem: str, word: str, known: Iterable[str]) -> ConfigError:
    """Return the error for an unknown word, with the most similar one or with all."""
    if near := get_close_matches(word, known, n=1):
        return _error(table, f"{problem}; the nearest is {near[0]!r}")
    return _error(table, f"{problem}; write one of {', '.join(map(repr, known))}")


def _error(table: NotifyTable, problem: str) -> ConfigError:
    return ConfigError(f"notify {table.name!r}: {problem}")

"""Compare the structure of a database with that of a new one.

The structure is what the file says besides its rows: the definitions of tables, indexes, views and
triggers, and whether each index agrees with its table.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from tagsync.database.connection import Connection
from tagsync.escaping import truncate

_FUNCTIONS: Final = frozenset({"json_each", "json_tree"})
"""Table-valued functions that views and queries of tagsync use."""

_OF_SQLITE: Final = re.compile(r"sqlite_(?:sequence|stat[1-4])")
"""The tables that SQLite itself adds: for AUTOINCREMENT and ANALYZE."""

_SIMPLE: Final = re.compile(r"\w{1,100}", re.ASCII)

_UNSEEN: Final = re.compile(r"[\s\x00-\x1f\u00ad\u200b-\u200f\u2060\ufeff]")
"""White space and characters without a width."""

_SHOWN: Final = 40
"""Number of characters of a definition in a message."""

_MESSAGES: Final = 10
"""Maximum number of messages that SQLite's own check collects before it stops."""

_NOT_CHECKED: Final = "readonly database"
"""Part of the message of SQLite 3.44.0, whose check of a full-text index needs to write."""

_OF_A_VALUE: Final = ("CHECK constraint failed", "NULL value in")
"""The beginnings of the messages about a value, which no other row depends on."""


def definition_fault(
    present: Mapping[str, str | None], expected: Mapping[str, str | None]
) -> str | None:
    """Return the first difference between the definitions of a database and of a new one.

    Tables and views may be added, unless they hide one of tagsync's. Indexes and triggers may not:
    an index can refuse rows, and a trigger can change them. The index of a constraint of an added
    table belongs to that table.

    Args:
        present: The definitions in the database; see `tagsync.database.migrations.definitions`.
        expected: The definitions in a new database.

    Returns:
        A sentence, or None if no difference matters.
    """
    names = {_plain(key.partition(" ")[2]): key for key in expected}
    added = [key for key in present if key not in expected]
    for key in added:
        kind, _, name = key.partition(" ")
        shown = f"the {kind} {name if _SIMPLE.fullmatch(name) else repr(name[:_SHOWN])}"
        if kind in {"table", "view"}:
            if hidden := _hidden_by(name, names):
                return f"{shown} hides {hidden}"
        elif kind != "index" or present[key] is not None:
            return f"{shown} is not tagsync's"
    # Tables first: without its table, an index or a trigger is missing, too.
    for key in sorted(expected, key=lambda key: not key.startswith("table ")):
        if key not in present:
            return f"the {key} is missing"
        if present[key] != expected[key]:
            return f"the {key} is altered: {_difference(present[key], expected[key])}"
    return None


class Damage(NamedTuple):
    """What SQLite's own checks found.

    Attributes:
        sentence: The first fault.
        is_readable: Whether queries still see each row: no page and no index is damaged.
    """

    sentence: str
    is_readable: bool


def damage(db: Connection, tables: Iterable[str]) -> Damage | None:
    """Return the first damage of a page, an index, a value or a reference between tables.

    SQLite's own check compares each index with its table, row by row.

    Args:
        db: A connection that may read.
        tables: The tables whose references are checked.
    """
    messages = [text for (text,) in db.execute(f"PRAGMA integrity_check({_MESSAGES})")]
    faults = [text for text in messages if text != "ok" and _NOT_CHECKED not in text]
    # A damaged index matters more than a value, and both may be found.
    faults.sort(key=lambda text: text.startswith(_OF_A_VALUE))
    if faults:
        sentence = f"SQLite's integrity check found: {truncate(faults[0])}"
        return Damage(sentence, faults[0].startswith(_OF_A_VALUE))
    for table in tables:
        row = db.execute(f"PRAGMA foreign_key_check({table})").fetchone()
        if row is not None:
            sentence = f"row {row[1]} of {table} references a row of {row[2]} that is missing"
            return Damage(sentence, is_readable=True)
    return None


def _hidden_by(name: str, names: Mapping[str, str]) -> str | None:
    """Return what an added table or view with this name hides, or None if it hides nothing.

    Args:
        name: The name.
        names: The expected definitions by the plain form of their names.
    """
    plain = _plain(name)
    if plain in names:
        return f"the {names[plain]}"
    if plain in _FUNCTIONS or plain.startswith("pragma_"):
        return f"SQLite's function {plain}"
    if plain.startswith("sqlite_") and not _OF_SQLITE.fullmatch(name):
        return "a table of SQLite"
    return None


def _plain(name: str) -> str:
    """Return a name in the form in which names that look equal are equal.

    SQLite ignores the case of ASCII letters. People also overlook a blank and a full-width letter.
    """
    return _UNSEEN.sub("", unicodedata.normalize("NFKC", name)).casefold()


def _difference(present: str | None, expected: str | None) -> str:
    """Return where two definitions first differ."""
    if not isinstance(present, str) or expected is None:
        return f"its definition is {truncate(repr(present))}"
    pairs = zip(present, expected, strict=False)
    equal = min(len(present), len(expected))
    at = next((n for n, (one, other) in enumerate(pairs) if one != other), equal)
    start = max(0, at - _SHOWN // 2)
    here, there = (repr(text[start : at + _SHOWN]) for text in (present, expected))
    return f"from character {at + 1} it differs, {here} instead of {there}"

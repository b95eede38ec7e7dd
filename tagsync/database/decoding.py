"""Decode rows of the database, and report values that tagsync did not write.

SQLite keeps no checksums and accepts any type in any column. So after a damage of the disk or an
edit by hand, the file may contain values that tagsync never wrote. Decoding reports them as
`DamagedRecord`. Code that uses decoded values is outside of these functions: an exception there is
a bug.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec

from tagsync.clock import parse_timestamp
from tagsync.errors import DamagedRecord
from tagsync.escaping import truncate

Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
"""A number that can still be incremented without an overflow in SQLite."""

TIMESTAMP_PATTERN: Final = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"
"""The form of a time that `tagsync.clock.timestamp` writes."""

Timestamp = Annotated[str, msgspec.Meta(pattern=TIMESTAMP_PATTERN)]
"""A time in the form of `TIMESTAMP_PATTERN`."""

Fields = dict[str, tuple[Any, Any]]
"""The column ``changes.fields``: each field that differs, as its old and its new value."""

_matches_timestamp: Final = re.compile(TIMESTAMP_PATTERN, re.ASCII).match
_decode_fields: Final = msgspec.json.Decoder(Fields).decode


def decode(value: object, kind: Any, what: str) -> Any:
    """Return a row, or several, as a Python type.

    Args:
        value: The row as SQLite returns it.
        kind: The type: a struct with ``array_like=True``, a tuple, or a list of these.
        what: The name of the row, for the message.

    Raises:
        DamagedRecord: If the value is not of this type.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise damaged(what, error) from error


def decode_fields(text: object, what: str) -> Fields:
    """Return the JSON of the column ``changes.fields``.

    Args:
        text: The column as SQLite returns it.
        what: The name of the change, for the message.

    Raises:
        DamagedRecord: If the text is not a JSON object of pairs.
    """
    if not isinstance(text, str):
        raise damaged(what, "its fields are not text")
    try:
        return _decode_fields(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise damaged(what, error) from error


def check_timestamp(text: object, what: str) -> str | None:
    """Return a timestamp, or None.

    Args:
        text: The column as SQLite returns it.
        what: The name of the row, for the message.

    Raises:
        DamagedRecord: If the text is neither None nor a timestamp written by tagsync.
    """
    if text is None:
        return None
    if not isinstance(text, str) or not _matches_timestamp(text):
        raise damaged(what, f"{text!r} is not a timestamp")
    try:
        parse_timestamp(text)
    except ValueError as error:
        raise damaged(what, error) from error
    return text


def check_values(row: Mapping[str, Any], what: str) -> None:
    """Check that a row can be shown: no column of tagsync's holds bytes.

    Args:
        row: By column name.
        what: The name of the row, for the message.

    Raises:
        DamagedRecord: If a value consists of bytes.
    """
    for column, value in row.items():
        if isinstance(value, bytes):
            raise damaged(what, f"column {column} holds bytes")


def damaged(what: str, error: object) -> DamagedRecord:
    """Return the error for a row.

    Args:
        what: The name of the row.
        error: The problem with the row.
    """
    return DamagedRecord(f"{what}: {truncate(str(error))}")

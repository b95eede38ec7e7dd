"""Write TOML: values, and whole documents of tables."""

from collections.abc import Iterator, Mapping
from typing import Any


def format_value(value: object) -> str:
    """Return a text, a number, a boolean, or a list of these, as TOML.

    Raises:
        TypeError: If the value is none of these.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return f'"{"".join(map(_escape, value))}"'
    if isinstance(value, list):
        return f"[{', '.join(map(format_value, value))}]"
    raise TypeError(f"TOML has no {type(value).__name__}")


def format_document(tables: Mapping[str, Any]) -> str:
    """Return a document as TOML.

    Args:
        tables: Values, tables and lists of tables by key. Each key is letters, digits and "_".
    """
    return "\n".join(_lines(tables, "")).strip("\n") + "\n"


def _lines(table: Mapping[str, Any], place: str) -> Iterator[str]:
    """Yield the lines of a table: first its values, because a key belongs to the last header."""
    inner: list[tuple[str, str, Mapping[str, Any]]] = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            inner.append((key, f"[{place}{key}]", value))
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            inner += [(key, f"[[{place}{key}]]", each) for each in value]
        else:
            yield f"{key} = {format_value(value)}"
    for key, header, each in inner:
        yield ""
        yield header
        yield from _lines(each, f"{place}{key}.")


def _escape(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if character.isprintable() else f"\\U{ord(character):08x}"

"""Secrets, and how they are kept out of everything that is shown or stored."""

from collections.abc import Iterable


class Secret:
    """A secret value that only `reveal` shows.

    ``repr`` and ``str`` return asterisks, so that no log and no crash report can contain it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def reveal(self) -> str:
        """Return the value, for the one request that needs it."""
        return self._value


def redact(text: str, secrets: Iterable[Secret]) -> str:
    """Return the text with every secret replaced by asterisks."""
    # Longest first: one secret may be the beginning of another.
    for value in sorted((secret.reveal() for secret in secrets), key=len, reverse=True):
        text = text.replace(value, "***") if value else text
    return text

"""Secret values, which tagsync must not show or store."""

from collections.abc import Iterable


class Secret:
    """A secret value, which only `reveal` returns.

    ``repr`` and ``str`` return asterisks, so that no log and no crash report can contain the value.
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
        """Return the value itself, for the code that sends it to a server."""
        return self._value


def redact(text: str, secrets: Iterable[Secret]) -> str:
    """Return the text with every secret replaced by asterisks."""
    # Longest first: one secret may be the beginning of another.
    for value in sorted((secret.reveal() for secret in secrets), key=len, reverse=True):
        text = text.replace(value, "***") if value else text
    return text

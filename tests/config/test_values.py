"""Values that are written as text: durations, sizes and names of secrets."""

import pytest

from tests.support.configurations import MINIMAL, SECRET, refusal, with_token


@pytest.mark.parametrize(
    "text", ["", "5", "m", "0s", "0h0m", "-5m", "1.5h", "5 m", "5M", " 5m", "5m!", "367d", "5w"]
)
@pytest.mark.parametrize("key", ["timeout", "retry_for"])
def test_invalid_duration_is_refused(text: str, key: str) -> None:
    """The error for an invalid duration has its key and value."""
    sentence = refusal(f'{MINIMAL}{key} = "{text}"\n')
    assert key in sentence
    assert f"invalid duration {text!r}" in sentence


@pytest.mark.parametrize("text", ["", "0MiB", "1MB", "64", "-1MiB", "1.5GiB", "1 MiB", "64mib"])
def test_invalid_size_is_refused(text: str) -> None:
    """The error for an invalid size has its key and value."""
    sentence = refusal(f'{MINIMAL}max_listing_size = "{text}"\n')
    assert "max_listing_size" in sentence
    assert f"invalid size {text!r}" in sentence


@pytest.mark.parametrize("value", [f'"{SECRET}"', f'"ENV:{SECRET}"', f'"vault:{SECRET}"', '"env:"'])
def test_literal_secret_is_refused_unquoted(value: str) -> None:
    """A literal secret is refused unquoted, with the three ways to name it."""
    sentence = refusal(with_token(value))
    assert SECRET not in sentence
    assert "token" in sentence.partition(": ")[0]
    assert all(way in sentence for way in ("env:NAME", "file:PATH", "credential:NAME"))


def test_numeric_secret_is_refused_unquoted() -> None:
    """A secret written as a number is refused without its digits."""
    assert "31415926" not in refusal(with_token("31415926"))

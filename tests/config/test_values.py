"""Values that are written as text: durations, sizes and names of secrets."""

import pytest

from tests.support.configurations import MINIMAL, SECRET, refusal, with_token


@pytest.mark.parametrize(
    "text", ["", "5", "m", "0s", "0h0m", "-5m", "1.5h", "5 m", "5M", " 5m", "5m!", "367d", "5w"]
)
@pytest.mark.parametrize("key", ["timeout", "retry_for"])
def test_an_impossible_duration_is_refused(text: str, key: str) -> None:
    """What is no positive length of time within a year is refused with its key and value."""
    sentence = refusal(f'{MINIMAL}{key} = "{text}"\n')
    assert key in sentence
    assert f"invalid duration {text!r}" in sentence


@pytest.mark.parametrize("text", ["", "0MiB", "1MB", "64", "-1MiB", "1.5GiB", "1 MiB", "64mib"])
def test_an_impossible_size_is_refused(text: str) -> None:
    """What is no positive number of binary bytes is refused with its key and value."""
    sentence = refusal(f'{MINIMAL}max_listing_size = "{text}"\n')
    assert "max_listing_size" in sentence
    assert f"invalid size {text!r}" in sentence


@pytest.mark.parametrize("value", [f'"{SECRET}"', f'"ENV:{SECRET}"', f'"vault:{SECRET}"', '"env:"'])
def test_a_literal_secret_is_refused_and_not_repeated(value: str) -> None:
    """A secret written into the file is refused unrepeated, with the three ways to name it."""
    sentence = refusal(with_token(value))
    assert SECRET not in sentence
    assert "token" in sentence.partition(": ")[0]
    assert all(way in sentence for way in ("env:NAME", "file:PATH", "credential:NAME"))


def test_a_secret_that_is_a_number_is_not_repeated() -> None:
    """A secret written as a number is refused without its digits."""
    assert "31415926" not in refusal(with_token("31415926"))

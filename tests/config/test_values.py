"""Values that are written as text: durations, sizes and names of secrets."""

from datetime import timedelta

import pytest

from tests.support.configurations import MINIMAL, SECRET, parsed, refusal, watching, with_token


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(('"300ms"', 0.3), ("300", 300), ('"300"', 300), ('"5m"', 300), ('"5 min"', 300)),
        *(('"1h30m"', 5400), ('"1H 30M1s"', None), ('"1d"', 86400), ('"1w"', 604800)),
        *(('"2 Weeks"', 1209600), ('"5 MIN"', 300), ('"1 hour 30 minutes"', 5400)),
        *(('"5\u00a0min"', 300), ('"1\u202fh\u00a030\u2009m"', 5400)),
        *((' " 90s "', 90), ('"20MS"', 0.02), ('"1h0m"', 3600)),
    ],
)
def test_durations_as_people_write_them(text: str, seconds: float | None) -> None:
    """Units may be written out, in any case, after any space; a number alone is seconds."""
    line = f"{MINIMAL}timeout = {text}\n"
    if seconds is None:
        assert "M may mean minutes or months" in refusal(line)
    else:
        assert parsed(line).registries["swr"].timeout == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "m", "-5m", "1.5h", "5m!", "367d", "53w", "5 months", "5y", "m5", "5  m", "٣m"]
)
@pytest.mark.parametrize("key", ["timeout", "retry_for", "agree_after"])
def test_invalid_duration_is_refused(text: str, key: str) -> None:
    """The error for an invalid duration has its key and value."""
    sentence = refusal(f'{MINIMAL}{key} = "{text}"\n')
    assert key in sentence
    assert f"invalid duration {text!r}" in sentence


def test_ambiguous_unit_is_refused_with_advice() -> None:
    """A bare M may mean minutes or months."""
    sentence = refusal(f'{MINIMAL}timeout = "5M"\n')
    assert 'write "5m" for minutes, or "150d" for months' in sentence


@pytest.mark.parametrize("value", ["true", "1.5", "[]", "2026-05-03", "-1"])
def test_duration_of_another_type_is_refused(value: str) -> None:
    """Only a text or a whole number is a duration."""
    assert "invalid duration" in refusal(f"{MINIMAL}timeout = {value}\n")


@pytest.mark.parametrize("zero", ["0", '"0"', '"0s"', '"0h 0m"'])
def test_zero_means_none_only_where_it_can(zero: str) -> None:
    """A duration of 0 is accepted where it means none, and refused elsewhere."""
    watch = watching("a/b")
    assert parsed(f"{MINIMAL}retry_for = {zero}\n").registries["swr"].retry_for == timedelta()
    agreeing = parsed(f"{MINIMAL}agree_after = {zero}\n").registries["swr"]
    assert agreeing.agree_after == timedelta()
    assert parsed(f"{watch}jitter = {zero}\n").watches[0].jitter == timedelta()
    assert parsed(f"[schedule]\njitter = {zero}\n{watch}").watches[0].jitter == timedelta()
    for text in (
        f"{MINIMAL}timeout = {zero}\n",
        f"{watch}interval = {zero}\n",
        f"{watch}discovery_interval = {zero}\n",
        f"[schedule]\ninterval = {zero}\n",
        f"[schedule]\ndiscovery_interval = {zero}\n",
    ):
        assert "0 is not possible here; write 1 ms or more" in refusal(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        *(('"256MB"', 256_000_000), ('"256 MiB"', 2**28), ("1000000", 10**6), ('"1000000"', 10**6)),
        *(
            ('"64mib"', 2**26),
            ('"1 kB"', 1000),
            ('"2\u00a0GiB"', 2**31),
            ('"1TB"', 10**12),
            ('"9 B"', 9),
        ),
    ],
)
def test_sizes_as_people_write_them(text: str, size: int) -> None:
    """Decimal and binary units are accepted in any case; a number alone is bytes."""
    line = f"{MINIMAL}max_listing_size = {text}\n"
    assert parsed(line).registries["swr"].max_listing_size == size


@pytest.mark.parametrize("text", ["", "-1MiB", "1.5GiB", "64M", "64 Mib ps", "MiB"])
def test_invalid_size_is_refused(text: str) -> None:
    """The error for an invalid size has its key and value."""
    sentence = refusal(f'{MINIMAL}max_listing_size = "{text}"\n')
    assert "max_listing_size" in sentence
    assert f"invalid size {text!r}" in sentence


@pytest.mark.parametrize("text", ["0", "0MiB", "9999999TiB"])
def test_impossible_size_is_refused(text: str) -> None:
    """A size of 0, or of more than any machine has, is refused."""
    assert "between 1 byte and 8 PiB" in refusal(f'{MINIMAL}max_listing_size = "{text}"\n')


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

"""Values as a table shows them: digests, times, ages, durations and sizes."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from tagsync.cli.formats import (
    age_text,
    between_text,
    digest_text,
    duration_text,
    reason_text,
    size_text,
    time_text,
)

NOW = datetime(2026, 11, 26, 12, 41, 30, tzinfo=UTC)
DIGITS = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("digest", "short"),
    [
        (f"sha256:{DIGITS}", "0123456789ab"),
        (DIGITS, "0123456789ab"),
        (f"sha512:{DIGITS * 2}", "sha512:0123456789ab"),
        ("latest", "latest"),
        ("sha256:short", "sha256:short"),
        (None, ""),
    ],
)
def test_digest_has_12_digits(digest: str | None, short: str) -> None:
    """A digest has 12 digits; only algorithms other than SHA-256 are named."""
    assert digest_text(digest) == short
    assert digest_text(digest, full=True) == (digest or "")


def test_time_has_minutes_in_its_zone() -> None:
    """A time is shown in UTC or in a zone, and other text as it is."""
    text = "2026-11-26T12:38:59.999Z"
    assert time_text(text, UTC) == "2026-11-26 12:38"
    assert time_text(text, ZoneInfo("Asia/Tokyo")) == "2026-11-26 21:38"
    assert len(time_text(text, None)) == 16
    for other in ("yesterday", "2026-11-26T12:38:59", "9999-12-31T23:59:59-14:00", ""):
        assert time_text(other, UTC) == other


@pytest.mark.parametrize(
    ("start", "end", "words"),
    [
        (
            "2026-11-26T12:38:59.999Z",
            "2026-11-26T12:43:00.000Z",
            "between 2026-11-26 12:38 and 12:43",
        ),
        (
            "2026-11-26T12:38:01.000Z",
            "2026-11-26T12:38:02.000Z",
            "between 2026-11-26 12:38:01 and 12:38:02",
        ),
        (
            "2026-11-26T12:38:01.250Z",
            "2026-11-26T12:38:01.320Z",
            "between 2026-11-26 12:38:01.250 and 12:38:01.320",
        ),
        (
            "2026-11-26T23:58:00.000Z",
            "2026-11-27T00:03:00.000Z",
            "between 2026-11-26 23:58 and 2026-11-27 00:03",
        ),
        (None, "2026-11-26T12:38:00.000Z", "until 2026-11-26 12:38"),
        ("2026-11-26T12:38:00.000Z", None, "since 2026-11-26 12:38"),
        (None, None, "at any time"),
    ],
)
def test_period_in_words(start: str | None, end: str | None, words: str) -> None:
    """A period names its day once, and has seconds if it is within a minute."""
    assert between_text(start, end, UTC) == words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0, "< 1 s"), (1.5, "1 s"), (59, "59 s"), (300, "5 min"), (3_900, "1 h 5 min")),
        *((86_400, "1 d"), (90_000, "1 d 1 h"), (86_400 + 60, "1 d"), (40 * 86_400, "40 d")),
    ],
)
def test_duration_has_two_units(seconds: float, text: str) -> None:
    """A duration has its longest unit, and the next one unless that is 0."""
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0.4, "now"), (59, "59 s ago"), (200, "3 min ago"), (7_300, "2 h ago")),
        *((200_000, "2 d ago"), (-200, "in 3 min")),
    ],
)
def test_age_has_one_unit(seconds: float, text: str) -> None:
    """An age has its longest unit; a time in the future is shown as such."""
    assert age_text((NOW - timedelta(seconds=seconds)).isoformat(), NOW) == text


def test_age_of_nothing() -> None:
    """Without a time the age is never, and a text that is not a time is shown."""
    assert (age_text(None, NOW), age_text("soon", NOW)) == ("never", "soon")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        *((0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (9_960, "10 kB"), (1_304_902, "1.3 MB")),
        *((999_999, "1.0 MB"), (15_000_000_000, "15 GB"), (2**63, "9.2 EB"), (None, "")),
    ],
)
def test_size_has_a_unit(size: int | None, text: str) -> None:
    """A size has two or three digits, and a unit of the powers of 1,000."""
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("https://r.example/v2/a/b/tags answered 503", "answered 503"),
        ("http://127.0.0.1:9 could not be reached", "could not be reached"),
        ("a/b was read 3 times", "was read 3 times"),
        ("the registry refuses the login", "the registry refuses the login"),
        ("https://r.example", "https://r.example"),
        ("", ""),
    ],
)
def test_a_reason_has_no_address(error: str, reason: str) -> None:
    """What a row says of the repository anyway is left out of its error."""
    assert reason_text(error, "r/a/b") == reason

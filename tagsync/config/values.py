"""Types of values that are text in the configuration file, such as durations."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, Self

from cronsim import CronSimError

from tagsync.schedule import firings

_UNITS: Final = {
    **dict.fromkeys(("ms", "msec", "msecs", "millisecond", "milliseconds"), 0.001),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86400),
    **dict.fromkeys(("w", "week", "weeks"), 7 * 86400),
}
"""Seconds by unit."""

_YEAR: Final = 366 * 86400
_DAYS_OF_MONTH: Final = 30

_SIZES: Final = {
    "": 1,
    "b": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", 1)},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", 1)},
}
"""Bytes by unit."""

_LARGEST_SIZE: Final = 2**53

_CRON_NAMES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
"""The fields that each name means, as in crontab(5)."""


class Duration(timedelta):
    """A positive length of time, written as ``"90s"``, ``"5 min"``, ``"1h30m"`` or ``300``."""

    @classmethod
    def parse(cls, value: object) -> Self:
        """Parse a duration. A number without a unit is a number of seconds.

        Raises:
            ValueError: If the value is not a duration, or is 0, or is longer than a year.
        """
        if not (duration := cls._parse_with_zero(value)):
            raise ValueError(
                f"invalid duration {value!r}: 0 is not possible here; write 1 ms or more"
            )
        return duration

    @classmethod
    def _parse_with_zero(cls, value: object) -> Self:
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        parts = list(_duration_parts(text)) if isinstance(text, str) else []
        if not parts:
            raise ValueError(f'invalid duration {value!r}; write it like "90s", "5m" or "1h30m"')
        for number, unit in parts:
            if unit == "M":
                raise ValueError(
                    f"invalid duration {value!r}: M may mean minutes or months; write"
                    f' "{number}m" for minutes, or "{int(number) * _DAYS_OF_MONTH}d" for months'
                )
        seconds = sum(int(number) * _UNITS[unit.lower()] for number, unit in parts)
        if seconds > _YEAR:
            raise ValueError(f"invalid duration {value!r}; write one of a year or less")
        return cls(seconds=seconds)


class DurationOrZero(Duration):
    """A length of time as `Duration`, or 0, which means none."""

    @classmethod
    def parse(cls, value: object) -> Self:
        """Parse a duration.

        Raises:
            ValueError: If the value is not a duration, or is longer than a year.
        """
        return cls._parse_with_zero(value)


def format_duration(duration: timedelta) -> str | None:
    """Return the text that `DurationOrZero.parse` parses to a duration, such as ``1h30m``.

    The result is None if the duration is not a whole number of milliseconds.
    """
    rest, microseconds = divmod(duration // timedelta(microseconds=1), 1000)
    if microseconds:
        return None
    parts = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        number, rest = divmod(rest, size)
        parts += [f"{number}{unit}"] if number else []
    return "".join(parts) or "0s"


def _duration_parts(text: str) -> Iterator[tuple[str, str]]:
    """Yield each number of a duration with its unit. Yields nothing for another text."""
    text = text.strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        yield text, "s"
        return
    part = r"([0-9]{1,9})\s?([A-Za-z]+)"
    if re.fullmatch(rf"(?:{part}\s?)+", text):
        parts = re.findall(part, text)
        if all(unit.lower() in _UNITS for _, unit in parts):
            yield from parts


class Size(int):
    """A positive number of bytes, written as ``"64 MiB"``, ``"256MB"`` or ``1000000``."""

    @classmethod
    def parse(cls, value: object) -> "Size":
        """Parse a size. A number without a unit is a number of bytes.

        Raises:
            ValueError: If the value is not a size, or is 0 or more than 8 PiB.
        """
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        match = (
            re.fullmatch(r"\s*([0-9]{1,16})\s?([A-Za-z]*)\s*", text)
            if isinstance(text, str)
            else None
        )
        unit = _SIZES.get(match[2].lower()) if match else None
        if match is None or unit is None:
            raise ValueError(
                f'invalid size {value!r}; write it like "64MiB" (1,048,576 bytes each), "256MB"'
                " (1,000,000 bytes each) or 1000000 (bytes)"
            )
        if not 0 < int(match[1]) * unit <= _LARGEST_SIZE:
            raise ValueError(f"invalid size {value!r}; write one between 1 byte and 8 PiB")
        return cls(int(match[1]) * unit)


def format_size(size: int) -> str | int:
    """Return the text or the number that `Size.parse` parses to a size, such as ``256MiB``."""
    for power, prefix in ((4, "T"), (3, "G"), (2, "M"), (1, "K")):
        if size % 1024**power == 0:
            return f"{size // 1024**power}{prefix}iB"
    return size


class Crontab(str):
    """The five time fields of a crontab line, in the syntax of Debian's cron.

    The times are in UTC, or in the time zone of a prefix such as ``CRON_TZ=Europe/Berlin``.
    """

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> "Crontab":
        """Check the fields, and return them in the form that `tagsync.schedule.firings` takes.

        Names such as ``@hourly`` become the fields that they mean.

        Raises:
            ValueError: If the text does not have five valid fields, if the time zone is unknown, or
                if no time matches the fields.
        """
        advice = 'write minute, hour, day, month and weekday like "*/10 8-18 * * 1-5"'
        if not isinstance(value, str):
            raise ValueError(f"invalid cron expression {value!r}; {advice}")
        match = re.fullmatch(r"\s*(?:(?:CRON_)?TZ=(\S*)\s+)?(.*?)\s*", value, re.DOTALL)
        zone, fields = match.groups() if match else (None, value)
        if fields.startswith("@every"):
            raise ValueError(
                f'invalid cron expression {value!r}; write it as interval, like interval = "6h"'
            )
        fields = _CRON_NAMES.get(fields.lower(), fields)
        if len(fields.split()) == 6:  # noqa: PLR2004  a crontab line has five
            raise ValueError(
                f"invalid cron expression {value!r}: it has six fields, and tagsync has none for"
                f" seconds; {advice}"
            )
        if len(fields.split()) != 5:  # noqa: PLR2004  a crontab's five
            raise ValueError(f"invalid cron expression {value!r}; {advice}")
        cron = " ".join(fields.split()) if zone is None else f"CRON_TZ={zone} {fields}"
        try:
            # Search the past, too: the interval of a schedule is measured between past matches.
            for reverse in (False, True):
                next(firings(cron, datetime.now(UTC), reverse=reverse))
        except CronSimError as error:
            raise ValueError(f"invalid cron expression {value!r} ({error}); {advice}") from error
        except (LookupError, ValueError, OSError) as error:
            raise ValueError(
                f"invalid cron expression {value!r}: the time zone {zone!r} is unknown; write one"
                " like CRON_TZ=Europe/Berlin, and install the time zones of your system (tzdata)"
            ) from error
        except StopIteration:
            raise ValueError(f"the cron expression {value!r} never matches; {advice}") from None
        return cls(cron)


class SecretName(str):
    """The place of a secret: ``env:NAME``, ``file:PATH`` or ``credential:NAME``."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: object) -> "SecretName":
        """Check the name of a place, and return it unchanged.

        Raises:
            ValueError: If the text does not name a place. The error does not quote the text,
                because the text may be the secret itself.
        """
        if not isinstance(text, str) or not re.fullmatch(r"(env|file|credential):.+", text):
            raise ValueError(
                "a secret must not be written into the configuration; name the place where it is"
                ' stored: "env:NAME", "file:PATH" or "credential:NAME"'
            )
        return cls(text)

"""Types of values that are text in the configuration file, such as durations."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from cronsim import CronSim, CronSimError

_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZES: Final = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


class Duration(timedelta):
    """A positive length of time, written as ``"90s"``, ``"5m"`` or ``"1h30m"``."""

    @classmethod
    def parse(cls, text: object) -> "Duration":
        """Parse a duration.

        Raises:
            ValueError: If the text is not a duration, or not one between 1 ms and a year.
        """
        parts = re.findall(r"(\d{1,9})(ms|s|m|h|d)", text) if isinstance(text, str) else []
        if not parts or "".join(map("".join, parts)) != text:
            raise ValueError(f'invalid duration {text!r}; write it like "90s", "5m" or "1h30m"')
        seconds = sum(int(number) * _UNITS[unit] for number, unit in parts)
        if not 0 < seconds <= 366 * 86400:
            raise ValueError(f"invalid duration {text!r}; write one between 1 ms and a year")
        return cls(seconds=seconds)


class Size(int):
    """A positive number of bytes, written as ``"64MiB"``."""

    @classmethod
    def parse(cls, text: object) -> "Size":
        """Parse a size.

        Raises:
            ValueError: If the text is not a size, or the size is 0.
        """
        match = re.fullmatch(r"(\d{1,9})(KiB|MiB|GiB)", text) if isinstance(text, str) else None
        if not match or not int(match[1]):
            raise ValueError(f'invalid size {text!r}; write it like "512KiB" or "64MiB"')
        return cls(int(match[1]) * _SIZES[match[2]])


class Crontab(str):
    """The five time fields of a crontab line, in the syntax of Debian's cron, in UTC."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: object) -> "Crontab":
        """Check the fields, and return them unchanged.

        Raises:
            ValueError: If the text does not have five valid fields, or no time matches them.
        """
        advice = 'write minute, hour, day, month and weekday like "*/10 8-18 * * 1-5"'
        if not isinstance(text, str) or len(text.split()) != 5:  # noqa: PLR2004  a crontab's five
            raise ValueError(f"invalid cron expression {text!r}; {advice}")
        try:
            # Search the past, too: the interval of a schedule is measured between past matches.
            for reverse in (False, True):
                next(CronSim(text, datetime.now(UTC), reverse=reverse))
        except CronSimError as error:
            raise ValueError(f"invalid cron expression {text!r} ({error}); {advice}") from error
        except StopIteration:
            raise ValueError(f"the cron expression {text!r} never matches; {advice}") from None
        return cls(text)


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

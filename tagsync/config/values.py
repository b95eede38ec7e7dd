"""Values of the configuration that are written as text."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from cronsim import CronSim, CronSimError

_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}

_SIZES: Final = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


class Duration(timedelta):
    """A positive length of time, written as ``"90s"``, ``"5m"``, ``"1h30m"``."""

    @classmethod
    def parse(cls, text: object) -> "Duration":
        """Reads a duration.

        Raises:
            ValueError: it is none, or not positive.
        """
        parts = re.findall(r"(\d{1,9})(ms|s|m|h|d)", text) if isinstance(text, str) else []
        if not parts or "".join(map("".join, parts)) != text:
            raise ValueError(f'{text!r} is no duration; write it like "90s", "5m" or "1h30m"')
        seconds = sum(int(number) * _UNITS[unit] for number, unit in parts)
        if not 0 < seconds <= 366 * 86400:
            raise ValueError(f"{text!r} is no duration between 1 ms and a year")
        return cls(seconds=seconds)


class Size(int):
    """A number of bytes, written as ``"64MiB"``."""

    @classmethod
    def parse(cls, text: object) -> "Size":
        """Reads a size.

        Raises:
            ValueError: it is none, or not positive.
        """
        match = re.fullmatch(r"(\d{1,9})(KiB|MiB|GiB)", text) if isinstance(text, str) else None
        if not match or not int(match[1]):
            raise ValueError(f'{text!r} is no size; write it like "512KiB" or "64MiB"')
        return cls(int(match[1]) * _SIZES[match[2]])


class Crontab(str):
    """When to poll, as the first five fields of a crontab's line; Debian's cron, in UTC."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: object) -> "Crontab":
        """Reads the five fields.

        Raises:
            ValueError: they are no such fields, or name a moment that never comes.
        """
        advice = 'write minute, hour, day, month and weekday like "*/10 8-18 * * 1-5"'
        if not isinstance(text, str) or len(text.split()) != 5:  # noqa: PLR2004  a crontab's five
            raise ValueError(f"{text!r} is no cron expression; {advice}")
        try:
            # Backwards as well: how far polls are apart is told from those before.
            for reverse in (False, True):
                next(CronSim(text, datetime.now(UTC), reverse=reverse))
        except CronSimError as error:
            raise ValueError(f"{text!r} is no cron expression ({error}); {advice}") from error
        except StopIteration:
            raise ValueError(f"{text!r} names a moment that never comes; {advice}") from None
        return cls(text)


class SecretName(str):
    """Where a secret is kept: ``env:NAME``, ``file:PATH`` or ``credential:NAME`` (systemd's)."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: object) -> "SecretName":
        """Reads the name of a secret.

        Raises:
            ValueError: it is none; the text is not repeated, as it may be the secret itself.
        """
        if not isinstance(text, str) or not re.fullmatch(r"(env|file|credential):.+", text):
            raise ValueError(
                "a secret is not written here; name where it is kept:"
                ' "env:NAME", "file:PATH" or "credential:NAME"'
            )
        return cls(text)

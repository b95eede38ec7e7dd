"""Makes the parts that several commands need from what the command line says."""

import os
from pathlib import Path

from tagsync.cli import Settings
from tagsync.config import Config, find, load


def configuration(settings: Settings) -> Config:
    """Sets logging up and reads the configuration.

    Raises:
        ConfigError: there is none, or it is wrong.
    """
    # structlog takes a third of the time in which a question to the database is answered.
    from tagsync import log  # noqa: PLC0415  see above

    log.configure(settings.log_format, settings.log_level)  # type: ignore[arg-type]  # click checked it
    return configuration_of_questions(settings)


def configuration_of_questions(settings: Settings) -> Config:
    """Reads the configuration for a command that asks the database alone, and logs nothing.

    Raises:
        ConfigError: as `configuration`.
    """
    return load(find_configuration(settings), os.environ)


def find_configuration(settings: Settings) -> Path:
    """Which file is the configuration.

    Raises:
        ConfigError: there is none.
    """
    return find(settings.config, os.environ)


def named(path: Path) -> str:
    """A path as people call it: relative to where they are, if it is below."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)

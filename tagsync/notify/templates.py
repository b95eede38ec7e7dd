"""The templates of subjects and texts: `string.Template` with the values of an event."""

from collections.abc import Mapping
from difflib import get_close_matches
from string import Template
from typing import Final

from tagsync.errors import ConfigError

NAMES: Final = (
    "change_id",
    "count",
    "destination",
    "event_id",
    "first",
    "hash",
    "kind",
    "new_digest",
    "not_before",
    "observed_at",
    "old_digest",
    "previous",
    "repository",
    "sentence",
    "tag",
)
"""The names that a template may use. docs/notifications.md explains each."""


def check_template(key: str, text: str) -> None:
    """Check a template of the configuration.

    Args:
        key: The key, for the error.
        text: The template.

    Raises:
        ConfigError: If a ``$`` is not followed by a name, or the name is none of `NAMES`.
    """
    template = Template(text)
    if not template.is_valid():
        raise ConfigError(
            f"{key}: a $ is not followed by a name: write $repository or ${{repository}}, and $$"
            " for the sign itself"
        )
    for name in template.get_identifiers():
        if name not in NAMES:
            near = get_close_matches(name, NAMES, n=1, cutoff=0.5)
            advice = f"did you mean ${near[0]}?" if near else f"known are ${', $'.join(NAMES)}"
            raise ConfigError(f"{key}: there is no ${name}: {advice}")


def uses(text: str, name: str) -> bool:
    """Return whether a valid template uses a name."""
    return name in Template(text).get_identifiers()


def fill(text: str, values: Mapping[str, str]) -> str:
    """Return the text of a template. It has passed `check_template`."""
    return Template(text).substitute(values)

"""Pure: which events a destination gets."""

import re
from collections.abc import Sequence
from fnmatch import translate
from typing import Final

from tagsync.database.events import Event, EventKey
from tagsync.notify.targets import Rule


class Filter:
    """The filter of a rule, ready for many events."""

    def __init__(self, rule: Rule) -> None:
        self._kinds: Final = frozenset(rule.events)
        self._repositories: Final = _compile(rule.repositories)
        self._tags: Final = _compile(rule.tags)

    def wants(self, event: Event | EventKey) -> bool:
        """Return whether the destination gets an event.

        An event without a repository or without a tag matches every glob over these.
        """
        if event.kind not in self._kinds:
            return False
        if event.repository is not None and not self._repositories.match(event.repository):
            return False
        return event.tag is None or self._tags.match(event.tag) is not None


def _compile(globs: Sequence[str]) -> re.Pattern[str]:
    """Return an expression that matches what one of the globs does. Case counts."""
    return re.compile("|".join(map(translate, globs)))

"""A registry whose tags change without pause, and never lie."""

from random import Random
from typing import Final

from tagsync.emulator import Emulator

REPOSITORIES: Final = 20
TAGS: Final = 200
"""The number of repositories, and of the tags of each."""

_DELETED: Final = 0.04
"""The share of changes that delete a tag."""


class BusyRegistry:
    """Changes one tag after another, so that few tags change twice between two polls."""

    def __init__(self, emulator: Emulator, seed: str) -> None:
        self._emulator: Final = emulator
        self._random: Final = Random(seed)
        self._pushes = 0
        self._missing: set[tuple[str, str]] = set()
        self._tags: Final = [
            (f"team/app{repository}", f"v{tag}")
            for repository in range(REPOSITORIES)
            for tag in range(TAGS)
        ]
        for repository, tag in self._tags:
            emulator.push(repository, tag, "first")
        self._random.shuffle(self._tags)
        self._next = 0

    def change(self) -> None:
        """Move, delete or add the next tag."""
        repository, tag = self._tags[self._next % len(self._tags)]
        self._next += 1
        if (repository, tag) not in self._missing and self._random.random() < _DELETED:
            self._emulator.delete(repository, tag)
            self._missing.add((repository, tag))
            return
        self._missing.discard((repository, tag))
        self._pushes += 1
        self._emulator.push(repository, tag, str(self._pushes))

"""Select repositories and tags by the patterns of a command line.

A pattern is a glob over full names, ``registry/namespace/repository``. A colon and a second glob
may follow, which narrow it to tags.
"""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from glob import escape
from typing import NamedTuple

from tagsync.errors import UnclearQuestion, UnknownRepository
from tagsync.models import Repository


class Pattern(NamedTuple):
    """A pattern, split at its first colon.

    Attributes:
        repository: Glob over full names of repositories.
        tag: Glob over names of tags. None means all tags.
    """

    repository: str
    tag: str | None

    @classmethod
    def parse(cls, text: str) -> "Pattern":
        """Split a pattern.

        Raises:
            UnclearQuestion: If the text has a colon, and nothing before or after it.
        """
        repository, colon, tag = text.partition(":")
        if colon and not (repository and tag):
            raise UnclearQuestion(
                f"invalid pattern {text!r}: write REPOSITORY or REPOSITORY:TAG, in which * matches"
                " everything"
            )
        return cls(repository, tag if colon else None)


class Selection(NamedTuple):
    """The repositories and tags that some patterns select.

    Attributes:
        patterns: The patterns. Without any, everything is selected.
        repositories: The repositories that match a pattern.
    """

    patterns: tuple[Pattern, ...]
    repositories: list[Repository]

    def has(self, repository: str, tag: str | None) -> bool:
        """Return whether a tag is selected.

        Args:
            repository: The full name of a selected repository.
            tag: The name of a tag. None, which is never selected by its name, is selected.
        """
        if tag is None or not self.narrowed:
            return True
        return any(
            (pattern.tag is None or fnmatchcase(tag, pattern.tag))
            and fnmatchcase(repository, pattern.repository)
            for pattern in self.patterns
        )

    @property
    def narrowed(self) -> bool:
        """Whether a pattern selects only some tags."""
        return any(pattern.tag is not None for pattern in self.patterns)


def select(known: Sequence[Repository], patterns: Iterable[str]) -> Selection:
    """Return what the patterns select of the known repositories.

    Raises:
        UnclearQuestion: If a pattern is invalid.
        UnknownRepository: If a pattern matches no repository.
    """
    parsed = tuple(map(Pattern.parse, patterns))
    return Selection(parsed, matching(known, [pattern.repository for pattern in parsed]))


def matching(repositories: Sequence[Repository], patterns: Sequence[str]) -> list[Repository]:
    """Return the repositories that match at least one of the globs.

    If ``patterns`` is empty, every repository matches.

    Raises:
        UnknownRepository: If a pattern matches no repository.
    """
    for pattern in patterns:
        if not selected(repositories, [pattern]):
            raise UnknownRepository(pattern, [repository.full_name for repository in repositories])
    return selected(repositories, patterns)


def selected(repositories: Sequence[Repository], patterns: Sequence[str]) -> list[Repository]:
    """Like `matching`, but patterns without a match are ignored."""
    return [
        repository
        for repository in repositories
        if not patterns or any(fnmatchcase(repository.full_name, p) for p in patterns)
    ]


def exact_pattern(repository: str, tag: str | None = None) -> str:
    """Return the pattern that selects one repository, or one of its tags, by name.

    A colon in the name of a repository, which no registry permits, matches any character.

    Args:
        repository: The full name of the repository.
        tag: The name of the tag. None means all tags.
    """
    name = escape(repository).replace(":", "?")
    return name if tag is None else f"{name}:{escape(tag)}"


def without_tags(patterns: Sequence[str]) -> Sequence[str]:
    """Return the patterns, none of which may name tags.

    Raises:
        UnclearQuestion: If a pattern has a colon.
    """
    for pattern in patterns:
        if ":" in pattern:
            raise UnclearQuestion(
                f"invalid pattern {pattern!r}: this command is about whole repositories; leave out"
                f" the colon and the text after it"
            )
    return patterns

"""Choose the colour of each digest in a drawing."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from itertools import chain, pairwise
from typing import Final

COLOURS: Final = 12
"""The number of colours. `drawing.css` has them as ``c0`` to ``c11``."""


def colour_of(digest: str) -> int:
    """Return the colour that a digest has if the others of the drawing leave it free."""
    # surrogatepass: a damaged record may contain any text.
    hashed = hashlib.sha256(digest.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(hashed[:4]) % COLOURS


def colours(lanes: Sequence[Sequence[str]]) -> list[list[int]]:
    """Return a colour for each digest of each lane. Two neighbours never have the same one.

    A digest has the same colour everywhere in the drawing, except next to a digest that has it,
    too, because one of them has more different neighbours than there are colours. Two digests
    share a colour only if the drawing has more digests than there are colours.
    """
    fixed = _colours_by_digest(lanes)
    return [_of_lane(digests, fixed) for digests in lanes]


def _of_lane(digests: Sequence[str], fixed: Mapping[str, int]) -> list[int]:
    chosen: list[int] = []
    for index, digest in enumerate(digests):
        colour = fixed[digest]
        if index and digests[index - 1] == digest:
            colour = chosen[-1]
        elif index and chosen[-1] == colour:
            following = fixed[digests[index + 1]] if index + 1 < len(digests) else None
            colour = _next_free(colour, {colour, following})
        chosen.append(colour)
    return chosen


def _colours_by_digest(lanes: Sequence[Sequence[str]]) -> dict[str, int]:
    """Return one colour per digest: the first free one in the order of first appearance."""
    neighbours: dict[str, set[str]] = defaultdict(set)
    for digests in lanes:
        for one, other in pairwise(digests):
            neighbours[one].add(other)
            neighbours[other].add(one)
    chosen: dict[str, int] = {}
    for digest in dict.fromkeys(chain.from_iterable(lanes)):
        taken: set[int] = set(chosen.values())
        if len(taken) == COLOURS:
            near = neighbours[digest] - {digest}
            taken = {chosen[other] for other in near if other in chosen}
        chosen[digest] = _next_free(colour_of(digest), taken)
    return chosen


def _next_free(colour: int, taken: Set[int | None] | Set[int]) -> int:
    """Return the first colour from ``colour`` on that is not taken, or ``colour`` if all are."""
    candidates = ((colour + step) % COLOURS for step in range(COLOURS))
    return next((candidate for candidate in candidates if candidate not in taken), colour)

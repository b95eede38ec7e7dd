"""Choose the colour of each digest in a lane."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

COLOURS: Final = 12
"""The number of colours. `drawing.css` has them as ``c0`` to ``c11``."""


def colour_of(digest: str) -> int:
    """Return the colour that a digest has if its neighbours leave it free."""
    # surrogatepass: a damaged record may contain any text.
    hashed = hashlib.sha256(digest.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(hashed[:4]) % COLOURS


def colours(digests: Sequence[str]) -> list[int]:
    """Return a colour for each digest of a lane. Two neighbours never have the same one.

    A digest has the same colour everywhere in the lane, except if it has more different
    neighbours than there are colours. Equal neighbours keep their colour.
    """
    fixed = _colours_by_digest(digests)
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


def _colours_by_digest(digests: Sequence[str]) -> dict[str, int]:
    """Return one colour per digest: the first free one in the order of first appearance."""
    neighbours: dict[str, set[str]] = defaultdict(set)
    for one, other in pairwise(digests):
        neighbours[one].add(other)
        neighbours[other].add(one)
    chosen: dict[str, int] = {}
    for digest in dict.fromkeys(digests):
        taken = {chosen[other] for other in neighbours[digest] - {digest} if other in chosen}
        chosen[digest] = _next_free(colour_of(digest), taken)
    return chosen


def _next_free(colour: int, taken: set[int | None] | set[int]) -> int:
    """Return the first colour from ``colour`` on that is not taken, or ``colour`` if all are."""
    candidates = ((colour + step) % COLOURS for step in range(COLOURS))
    return next((candidate for candidate in candidates if candidate not in taken), colour)

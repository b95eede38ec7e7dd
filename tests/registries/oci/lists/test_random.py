"""Random changes of a registry under random faults of its list: no poll makes a false change."""

from random import Random

import pytest

from tagsync.emulator.oci import Acr, Harbor, ListFault, OciEmulator, Vendor, Zot
from tests.support.clock import FakeClock
from tests.support.lists import REPOSITORY, ListedRegistry, Open, digests

POLLS = 30
SEEDS = 20

STALE = {ListFault.WRONG_DIGEST, ListFault.FROZEN}
"""The faults with which a list has a digest that the tag does not have. A list of the same store
as HEAD is then believed about new tags, until the sample has found it out."""

FAULTS = [fault for fault in ListFault if fault is not ListFault.FUTURE_END] + 4 * sorted(STALE)
"""The faults to choose from; those that are hardest to notice are chosen more often."""

NAMES = [f"v{number}" for number in range(12)] + [f"sha256-{'a' * 64}.sig"]


class RandomRegistry:
    """A registry that changes at random, and its polls."""

    def __init__(
        self, emulator: OciEmulator, registry: ListedRegistry, seed: str, *, same_store: bool
    ) -> None:
        self.random = Random(seed)
        self.emulator = emulator
        self.registry = registry
        self.stale = STALE if same_store else set[ListFault]()
        self.contents = 0
        for name in NAMES[:8]:
            self.push(name)

    def push(self, tag: str) -> None:
        """Push new content under a tag, or sometimes content of another tag."""
        self.contents += self.random.random() < 0.8
        self.emulator.push(REPOSITORY, tag, f"content {self.contents}")

    def change(self) -> None:
        """Push, move or delete some tags, and let some faults begin or end."""
        for _ in range(self.random.randrange(3)):
            tag = self.random.choice(NAMES)
            tags = self.emulator.tags(REPOSITORY)
            if tag in tags and len(tags) > 4 and self.random.random() < 0.3:
                self.emulator.delete(REPOSITORY, tag)
            else:
                self.push(tag)
        if self.random.random() < 0.4:
            for fault in self.emulator.faults:
                self.emulator.end(fault)
        if self.random.random() < 0.3:
            self.emulator.begin(self.random.choice(FAULTS))

    def poll(self) -> str | None:
        """Poll, check the listing against the registry and the record, and return its source."""
        before = self.registry.recorded.get(REPOSITORY, {})
        listing = self.registry.poll()
        found = digests(listing)
        truth = self.emulator.tags(REPOSITORY)
        assert found.keys() == truth.keys()
        may_be_stale = self.emulator.faults & self.stale
        for tag, digest in found.items():
            known = before[tag].digest if tag in before else None
            if tag in before and digest != known:
                assert digest == truth[tag], f"{tag} moved to a digest that it does not have"
            if tag not in before and not may_be_stale:
                assert digest == truth[tag], f"{tag} is new, with a digest that it does not have"
        return listing.source or ""


@pytest.mark.processes
@pytest.mark.parametrize("vendor", [Acr, Harbor, Zot])
def test_no_poll_makes_a_false_change(vendor: type[Vendor], listed: Open, clock: FakeClock) -> None:
    """The names are always right, and a digest changes only to the one that the tag has."""
    used = 0
    for seed in range(SEEDS):
        with OciEmulator(vendor()) as emulator:
            registry = listed(emulator)
            name, same_store = f"{vendor.__name__} {seed}", vendor is not Zot
            changing = RandomRegistry(emulator, registry, name, same_store=same_store)
            for _ in range(POLLS):
                changing.change()
                used += changing.poll() != "head"
                if changing.random.random() < 0.2:
                    clock.advance(days=1)  # a list that was refused is read again
    assert used > SEEDS * POLLS / 4

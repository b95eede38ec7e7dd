"""Which registries are in use, so that one is closed only after its last call."""

from collections import Counter
from collections.abc import Iterable

from tagsync.registries import Registry


class RegistryUse:
    """The number of calls to each registry that are under way.

    A retired registry is one that the plan does not use any more. It is closed after its last call.
    The caller holds a lock.
    """

    def __init__(self) -> None:
        self._calls: Counter[Registry] = Counter()
        self._retired: set[Registry] = set()

    @property
    def calls(self) -> int:
        """Number of calls to all registries."""
        return self._calls.total()

    def begin(self, registry: Registry) -> None:
        """Count a call that begins."""
        self._calls[registry] += 1

    def end(self, registry: Registry) -> None:
        """Count a call that has ended. If it was the last one, close a retired registry."""
        self._calls[registry] -= 1
        if not self._calls[registry]:
            del self._calls[registry]
            self.retire(())

    def retire(self, registries: Iterable[Registry]) -> None:
        """Close each of these registries as soon as no call uses it."""
        self._retired.update(registries)
        for registry in [each for each in self._retired if each not in self._calls]:
            self._retired.discard(registry)
            registry.close()

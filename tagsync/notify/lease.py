"""The lease of a destination: only one process sends to it at a time."""

import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from threading import Event, Thread
from typing import Final

from tagsync.clock import Clock, timestamp
from tagsync.database.outbox import Outbox
from tagsync.errors import StoreError

LEASE: Final = timedelta(seconds=60)
"""How long a lease lasts. If its holder is killed, another process may send after this time."""


def new_holder() -> str:
    """Return a name for the holder of a lease: the host, the process and a random part."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


class Lease:
    """The lease of one destination, for one thread of this process."""

    def __init__(
        self,
        outbox: Outbox,
        name: str,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
        renewed_every: float = 20.0,
    ) -> None:
        """Prepare the lease; it is not taken yet.

        Args:
            outbox: The destinations.
            name: The destination.
            clock: Returns the current time.
            monotonic: Returns seconds that a change of the system clock does not affect.
            renewed_every: Seconds between two renewals while a message is being sent.
        """
        self.holder: Final = new_holder()
        self._outbox: Final = outbox
        self._name: Final = name
        self._clock: Final = clock
        self._monotonic: Final = monotonic
        self._renewed_every: Final = renewed_every
        self._extended_at = monotonic()

    def acquire(self) -> bool:
        """Take the lease, or take it over if it has run out. Return whether this succeeded.

        Raises:
            StoreError: If the database could not be written.
        """
        now = self._clock()
        self._extended_at = self._monotonic()
        return self._outbox.acquire(self._name, self.holder, timestamp(now), timestamp(now + LEASE))

    def renew(self) -> bool:
        """Extend the lease. Return False if another process has taken it over.

        Raises:
            StoreError: If the database could not be written.
        """
        self._extended_at = self._monotonic()
        return self._outbox.renew(self._name, self.holder, timestamp(self._clock() + LEASE))

    def keep(self) -> bool:
        """Like `renew`, but only if it is time for a renewal."""
        return self._monotonic() - self._extended_at < self._renewed_every or self.renew()

    def release(self) -> None:
        """Give up the lease. If the database cannot be written, the lease runs out by itself."""
        with suppress(StoreError):
            self._outbox.release(self._name, self.holder)

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew the lease regularly while the block runs."""
        ended = Event()
        thread = Thread(target=self._renew_until, args=(ended,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _renew_until(self, ended: Event) -> None:
        while not ended.wait(self._renewed_every):
            # The sender notices a lost lease when it records the result.
            with suppress(StoreError):
                self.renew()


@contextmanager
def leased(
    outbox: Outbox,
    name: str,
    clock: Clock,
    seconds: float,
    wait: Callable[[float], object],
) -> Iterator[Lease | None]:
    """Hold the lease of a destination, so that no process sends to it meanwhile.

    Args:
        outbox: The destinations.
        name: The destination. It has been added.
        clock: Returns the current time.
        seconds: Maximum time to wait for another process.
        wait: Waits some seconds.

    Yields:
        The lease. None if another process still holds it.

    Raises:
        StoreError: If the database could not be written.
    """
    lease = Lease(outbox, name, clock)
    end = clock() + timedelta(seconds=seconds)
    while not (acquired := lease.acquire()) and clock() < end:
        wait(0.2)
    try:
        yield lease if acquired else None
    finally:
        if acquired:
            lease.release()

"""The results of verifications, and their events."""

import pytest

from tagsync.database.store import Store
from tagsync.database.verifications import Result, Verification

AT = "2026-05-01T00:00:00.000Z"


@pytest.mark.parametrize("result", ["fault", "failed"])
def test_each_verification_with_a_fault_has_an_event(store: Store, result: Result) -> None:
    """A verification that finds a fault or does not finish has an event, each time."""
    for _ in range(2):
        store.record_verification(Verification(AT, result, 1.0, "chain: change 1 is missing"))
    events = store.outbox.events(0, 10)
    assert [(event.kind, event.at, event.repository) for event in events] == [
        ("verification_failed", AT, None)
    ] * 2
    assert events[0].detail == {"result": result, "error": "chain: change 1 is missing"}


def test_verification_without_a_fault_has_no_event(store: Store) -> None:
    """A verification that finds nothing is recorded, and nothing is sent."""
    store.record_verification(Verification(AT, "ok", 1.0, None))
    assert store.last_verification() is not None
    assert store.outbox.events(0, 10) == []

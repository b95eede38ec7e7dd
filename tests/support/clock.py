"""A clock that moves only when a test moves it."""

from datetime import UTC, datetime, timedelta


class FakeClock:
    """A clock that stands still until `advance` is called."""

    def __init__(self) -> None:
        self.now = datetime(2026, 5, 3, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)

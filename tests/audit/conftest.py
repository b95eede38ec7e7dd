"""Fixtures for the audit: poll at a minute, and run a query."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tagsync.audit.queries import Audit
from tagsync.database.store import Store
from tagsync.errors import Unreachable
from tagsync.models import Tag
from tagsync.polling.jobs import Job, Options
from tagsync.polling.poll import poll
from tests.support.audit import Row
from tests.support.clock import FakeClock
from tests.support.registries import Scripted


@pytest.fixture
def run_query(database: Path) -> Callable[..., list[Row]]:
    """Run one query of the audit and return its rows."""

    def run(name: str, *arguments: Any, **options: Any) -> list[Row]:
        with Audit.open(database) as audit:
            return list(getattr(audit, name)(*arguments, **options))

    return run


@pytest.fixture
def poll_at(job: Job, scripted: Scripted, store: Store, clock: FakeClock) -> Callable[..., None]:
    """Poll at a minute; the poll lists these tags, or fails."""

    def run(minute: float, *tags: Tag | str, fails: bool = False, **options: bool) -> None:
        clock.now = FakeClock().now + timedelta(minutes=minute)
        if fails:
            scripted.script.append(Unreachable("no connection"))
        else:
            scripted.then(*tags)
        poll(job, store, Options(**options), clock)

    return run

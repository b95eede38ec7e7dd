"""A report on a large record is small, and its commands give the rest."""

from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from tagsync.audit.queries import Audit
from tagsync.clock import timestamp
from tagsync.database.outcomes import Accepted
from tagsync.database.store import Store
from tagsync.models import Listing, Tag
from tagsync.polling.decide import diff
from tagsync.report.build import MAX_SIZE, MEDIA_TYPES, build
from tagsync.report.collect import Limits, ask, collect
from tagsync.report.drawings import draw
from tests.support.clock import FakeClock
from tests.support.registries import INTERVAL, REPOSITORY

pytestmark = pytest.mark.processes

TAGS, LISTINGS = 200, 101
EVERYTHING = Limits(*([10**9] * len(Limits._fields)))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record of 20,000 changes: 200 tags with long fields, each of which moves 100 times."""
    path, now = tmp_path_factory.mktemp("large") / "tagsync.db", FakeClock().now
    with Store.open(path) as store:
        before: dict[str, Tag] = {}
        for number in range(LISTINGS):
            digest = f"sha256:{sha256(str(number).encode()).hexdigest()}"
            moment = timestamp(now + number * INTERVAL)
            tags = {
                name: Tag(name, digest, path="<&>" * 100, updated=moment)
                for name in (f"v{tag}.{'x' * 100}" for tag in range(TAGS))
            }
            accepted = Accepted(Listing(tags, {}, moment, moment, None), diff(before, tags))
            store.record(REPOSITORY, accepted, store.state(REPOSITORY), INTERVAL)
            before = tags
    return path


@pytest.mark.parametrize("limits", [Limits(), EVERYTHING], ids=["usual", "without limits"])
@pytest.mark.parametrize("output_format", MEDIA_TYPES)
def test_a_report_on_20000_changes_has_at_most_5_mb(
    output_format: str, limits: Limits, large: Path
) -> None:
    """Each format is within its size, and says how many changes there are and how to get them."""
    made_at = FakeClock().now + timedelta(days=30)
    with Audit.open(large) as audit:
        report = collect(audit, ask("swr/team/api", None, None), made_at, None, limits)
        written = build(report, output_format, draw(audit, report))  # type: ignore[arg-type]
    assert len(written) <= MAX_SIZE == 5_000_000
    length = report.length_of("changes")
    assert length.total == TAGS * (LISTINGS - 1) == 20_000
    assert length.command == "tagsync log swr/team/api --no-baseline --format json"
    assert length.command.encode() in written
    assert b"20,000" in written or b'"total": 20000' in written

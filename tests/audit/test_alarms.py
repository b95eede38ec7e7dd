"""The newest alarms: failing, held and stale repositories, and tags that should not move."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from tagsync.audit.alarms import Alarm, Alarms
from tagsync.audit.queries import Audit
from tagsync.models import Repository, Watch
from tests.support.audit import PollAt, at, pointing
from tests.support.clock import FakeClock
from tests.support.immutable import add_acceptance, add_violation
from tests.support.registries import INTERVAL, REPOSITORY

NAME = REPOSITORY.full_name
WATCHED: Mapping[Repository, Watch | None] = {
    REPOSITORY: Watch("swr", (REPOSITORY.name,), interval=INTERVAL)
}


def alarms_of(
    database: Path,
    minute: float,
    watches: Mapping[Repository, Watch | None] = WATCHED,
    newest: int = 20,
) -> Alarms:
    now = FakeClock().now + timedelta(minutes=minute)
    with Audit.open(database) as audit:
        return audit.charts.alarms(watches, now, newest=newest)


def test_polls_raise_one_alarm_a_repository(poll_at: PollAt, database: Path) -> None:
    """A repository whose last poll failed or was held says so; only else it may be stale."""
    poll_at(0, "a")
    assert alarms_of(database, 15).alarms == ()
    assert alarms_of(database, 15.1).alarms == (Alarm("stale", NAME, since=at(0)),)
    poll_at(16, fails=True)
    (alarm,) = alarms_of(database, 60).alarms
    assert (alarm.kind, alarm.since, alarm.detail) == ("failing", at(0), "no connection")
    poll_at(20)
    (alarm,) = alarms_of(database, 60).alarms
    assert (alarm.kind, alarm.since) == ("held", at(0))
    assert alarm.detail


def test_only_watched_repositories_raise_alarms(poll_at: PollAt, database: Path) -> None:
    """A repository that is not watched raises none; one that was never polled is stale."""
    poll_at(0, fails=True)
    never = Repository("swr", "team/never")
    assert alarms_of(database, 60, {REPOSITORY: None}).alarms == ()
    assert alarms_of(database, 60, {never: WATCHED[REPOSITORY]}).alarms == (
        Alarm("stale", never.full_name),
    )


def test_tags_that_should_not_move_raise_alarms(poll_at: PollAt, database: Path) -> None:
    """A move raises an alarm if the name promises that there is none, also after a deletion."""
    poll_at(0, pointing("1.2.3", "1"), pointing("2024-05-01", "1"), pointing("latest", "1"))
    poll_at(5, pointing("1.2.3", "2"), pointing("latest", "2"))
    poll_at(10, pointing("1.2.3", "2"), pointing("2024-05-01", "3"), pointing("latest", "2"))
    found = alarms_of(database, 10)
    assert [(each.tag, each.change_id, each.since) for each in found.alarms] == [
        ("2024-05-01", 7, at(10)),
        ("1.2.3", 4, at(5)),
    ]
    newest = found.alarms[0]
    assert (newest.old_digest, newest.new_digest, newest.not_before) == (
        "sha256:1",
        "sha256:3",
        at(5),
    )
    assert (found.counts, found.searched_from, found.complete) == ({"moved": 2}, at(0), True)
    assert alarms_of(database, 10, newest=1).alarms == (newest,)
    assert alarms_of(database, 10, newest=1).counts == {"moved": 2}


def test_a_move_is_one_alarm(poll_at: PollAt, database: Path) -> None:
    """A move of a tag that the configuration calls immutable is not an alarm by its name, too."""
    poll_at(0, pointing("1.2.3", "1"), pointing("1.2.4", "1"))
    poll_at(5, pointing("1.2.3", "2"), pointing("1.2.4", "2"))
    add_violation(database, 3)
    assert [alarm.change_id for alarm in alarms_of(database, 5).alarms] == [4]
    add_acceptance(database, 3)
    assert alarms_of(database, 5).counts == {"moved": 1}


def test_only_the_newest_changes_are_searched(poll_at: PollAt, database: Path) -> None:
    """Older moves than the limit are not looked at, and the answer says so."""
    poll_at(0, pointing("1.2.3", "1"), pointing("latest", "1"))
    poll_at(5, pointing("1.2.3", "2"), pointing("latest", "1"))
    poll_at(10, pointing("1.2.3", "2"), pointing("latest", "2"))
    with Audit.open(database) as audit:
        found = audit.charts.alarms({}, FakeClock().now, most=1)
    assert (found.alarms, found.complete, found.searched_from) == ((), False, at(10))

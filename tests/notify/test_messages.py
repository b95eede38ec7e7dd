"""Messages: types, sequence and data for programs; sentences without markup for people."""

import re
from typing import get_args

import pytest

from tagsync.database.events import EVENT_KINDS, Event, EventKind
from tagsync.errors import ConfigError
from tagsync.notify.messages import (
    Message,
    cloud_events,
    event_subject,
    event_type,
    message_id,
    message_of,
    text_for_people,
)
from tagsync.notify.preview import preview
from tagsync.notify.targets import CommandTarget, Rule
from tagsync.notify.templates import NAMES, check_template
from tests.support.events import AT, NEW, OLD, event

RULE = Rule("ops", CommandTarget(("/bin/true",)))

HOSTILE = (
    "@everyone",
    "<!channel>",
    "<@U123>",
    "[click](https://evil.example/)",
    "https://evil.example/",
    "<script>alert(1)</script>",
    "<b>&lt;",
    "*bold* ~strike~ `code` ||spoiler||",
    "# heading",
    "a\r\nBcc: victim@example.com",
    "a\n\n.\n",
    "\x1b[31mred\x07",
    "\u202egnp.exe",
    "$repository",
    "\ud800",
)
"""Names with which a registry could try to inject something into a text."""


def templated(subject: str | None = None, text: str | None = None) -> Rule:
    return Rule("ops", RULE.target, subject=subject, text=text)


def of(*events: Event) -> Message:
    return message_of(RULE, "db", 1, events)


def test_the_id_of_a_message_is_made_of_all_its_events() -> None:
    """Another destination, database or selection of events makes another id."""
    ids = {
        message_id(*each)
        for each in (("db", "a", [1, 2, 3]), ("db", "a", [1, 3]), ("db", "b", [1, 3]))
    }
    ids |= {message_id("other", "a", [1, 3])}
    assert len(ids) == 4
    assert message_id("db", "a", [1, 3]) in ids


def test_every_kind_has_a_type_and_a_sentence() -> None:
    """Each kind of event has its CloudEvents type, a headline and a sentence."""
    types = {event_type(kind) for kind in EVENT_KINDS}
    assert len(types) == len(get_args(EventKind))
    assert "tagsync.repository.held" in types
    assert "tagsync.record.verification_failed" in types
    for kind in EVENT_KINDS:
        subject, text = text_for_people(RULE, of(event(kind)))
        assert subject.startswith("swr/team/app:prod ")
        assert text.endswith(".")


def test_a_move_says_what_was_there_before() -> None:
    """The text and the data of a move have both digests and both times."""
    _, text = text_for_people(RULE, of(event()))
    assert f"moved from {OLD} to {NEW}" in text
    assert f"after {AT}" in text
    (sent,) = cloud_events(RULE, of(event()))
    data = sent["data"]
    assert (data["old_digest"], data["new_digest"]) == (OLD, NEW)
    assert (data["change_id"], data["hash"]) == (1, "head")
    assert (data["not_before"], data["observed_at"]) == (AT, AT)


def test_a_tag_that_returns_says_what_was_there_before() -> None:
    """After a deletion, the digest from before it is in the text and in the data."""
    back = event("immutable_moved", old=None, detail={"previous_digest": OLD})
    _, text = text_for_people(RULE, of(back))
    assert f"must not move, and moved from {OLD} to {NEW}" in text
    (sent,) = cloud_events(RULE, of(back))
    assert sent["data"]["previous_digest"] == OLD


def test_an_event_without_a_change_has_the_same_keys() -> None:
    """The data of every event has the same keys."""
    with_change, without = event(), event("stale", change=False, tag=None)
    (first,), (second,) = cloud_events(RULE, of(with_change)), cloud_events(RULE, of(without))
    assert first["data"].keys() == second["data"].keys()
    assert second["subject"] == "swr/team/app"


def test_an_event_about_the_record_has_no_subject() -> None:
    """CloudEvents' subject is left out where there is no repository."""
    whole = event("verification_failed", repository=None, tag=None, change=False)
    (sent,) = cloud_events(RULE, of(whole))
    assert "subject" not in sent
    assert "the record did not pass" in text_for_people(RULE, of(whole))[1]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", ["moved", "failed"])
def test_names_have_no_markup(name: str, kind: EventKind) -> None:
    """No name or text of a registry becomes markup, a mention, a link, or a line of its own."""
    detail: dict[str, object] = {"error": name, "reason": name}
    hostile = event(kind, repository=f"swr/{name}", tag=name, detail=detail)
    rule = templated("$repository $tag $first", "$repository|$tag|$sentence")
    for subject, text in (
        text_for_people(RULE, of(hostile)),
        text_for_people(rule, of(hostile)),
    ):
        assert subject.isprintable()
        for part in text.split("|"):
            assert part.isprintable()
            assert not re.search(r"[<>@&`*~\[\]\\#]|://", part)


def test_names_of_registries_stay_as_they_are() -> None:
    """Names that a registry may have are shown unchanged."""
    name = "team_a/app.web-2"
    subject = event_subject(RULE, event(repository=f"swr/{name}", tag="v1.2_3-rc.1"))
    assert subject == f"swr/{name}:v1.2_3-rc.1 moved"


def test_a_user_template_is_filled() -> None:
    """Every name of a template has a value, also for an event without a change."""
    rule = templated(subject=" ".join(f"{name}=${name}" for name in NAMES))
    for each in (event(), event("stale", repository=None, tag=None, change=False)):
        assert "$" not in event_subject(rule, each)


def test_several_events_are_counted_in_the_subject() -> None:
    """The subject names the first event and says how many others there are."""
    events = [event(number=number) for number in (1, 2, 3)]
    assert event_subject(RULE, events[0], 3) == "swr/team/app:prod moved (and 2 more)"
    assert event_subject(templated("$count moves"), events[0], 3) == "3 moves"


def test_one_change_is_mentioned_once() -> None:
    """If a move is also one of an immutable tag, the text has only the latter."""
    both = [event(number=1), event("immutable_moved", number=1)]
    subject, text = text_for_people(RULE, of(*both))
    assert text.count(NEW) == 1
    assert "must not move" in text
    assert subject


def test_a_flood_is_counted_by_kind() -> None:
    """A message that stands for more events than it has counts them, and describes the first."""
    message = Message("msg", "db", 1, (event(number=7),), {"moved": 90_000, "added": 10_000})
    _, text = text_for_people(RULE, message)
    assert "100,000 events: 10,000 added, 90,000 moved." in text
    assert "tagsync log --after 6" in text
    assert len(text) < 2000


def test_a_long_text_is_summed_up() -> None:
    """No text is too long for a chat."""
    events = [event(number=number) for number in range(1, 101)]
    subject, text = text_for_people(templated(subject="s" * 999), of(*events))
    assert "100 events: 100 moved." in text
    assert len(text) < 2000
    assert len(subject) == 200
    _, text = text_for_people(templated(text="x" * 9999), of(event()))
    assert text == "x" * 1800


@pytest.mark.parametrize(
    ("template", "part"),
    [
        ("$repo", r"did you mean \$repository\?"),
        ("$xyzzy", r"known are \$change_id"),
        ("100 $", "not followed by a name"),
        ("${tag", "not followed by a name"),
    ],
)
def test_wrong_templates_are_refused(template: str, part: str) -> None:
    """An unknown name and a stray $ are refused."""
    with pytest.raises(ConfigError, match=part):
        check_template("subject", template)


def test_a_preview_shows_what_would_have_been_sent() -> None:
    """Only events that the rule wants are shown, those within its batch time together."""
    rule = Rule("ops", RULE.target, tags=("prod",), batch_size=2)
    events = [event(number=number) for number in (1, 2, 3)] + [event(number=4, tag="dev")]
    assert [(each.first, each.last, each.events) for each in preview(rule, events, "db")] == [
        (1, 2, 2),
        (3, 3, 1),
    ]

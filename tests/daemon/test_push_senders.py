"""Notifications of pushes: what each sender's samples mean, and what hostile ones do not."""

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagsync.daemon.push_senders import MAX_EVENTS, SENDERS, Push, read_push
from tests.support.documents import section
from tests.support.push_samples import (
    SAMPLES,
    VALIDATION,
    Sample,
    azure,
    distribution,
    docker_hub,
    github,
    quay,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
)


def mutated(body: Any, other: Any) -> list[Any]:
    """Return copies of a body, in each of which one value is another one."""
    if isinstance(body, dict):
        pairs = [(key, each) for key, value in body.items() for each in mutated(value, other)]
        return [other, *({**body, key: each} for key, each in pairs)]
    if isinstance(body, list):
        return [other, *([each] for member in body for each in mutated(member, other))]
    return [other]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.sender)
def test_each_sample_means_what_its_vendor_says(sample: Sample) -> None:
    """The format is recognised, and only events that change a tag name a repository."""
    push = read_push(sample.body, sample.event_type)
    assert push == Push(sample.sender, sample.repositories)


def test_each_row_has_a_sample_and_a_source() -> None:
    """No format is in the table without a sample here and a source in the documentation."""
    names = {sender.name for sender in SENDERS}
    assert {sample.sender for sample in SAMPLES} == names
    documented = section("docs/push-hints.md", "Senders and sources")
    assert set(re.findall(r"^\| `([\w-]+)`.*https://", documented, re.MULTILINE)) == names


def test_many_events_about_one_repository_are_one_hint() -> None:
    """An envelope names each repository once, in the order of the events."""
    events = [
        distribution("push", repository=name, tag="v1")["events"][0]
        for name in ("team/b", "team/a", "team/b")
    ]
    assert read_push({"events": events}).repositories == ("team/b", "team/a")


def test_the_number_of_events_is_bounded() -> None:
    """An envelope with more events than the limit names only the first repositories."""
    events = [
        distribution("push", repository=f"team/r{number}", tag="v1")["events"][0]
        for number in range(MAX_EVENTS + 1)
    ]
    repositories = read_push({"events": events}).repositories
    assert len(repositories) == MAX_EVENTS
    assert repositories[-1] == f"team/r{MAX_EVENTS - 1}"


def test_event_grid_gets_its_code_back() -> None:
    """A request for validation has a code, unless it is too long or no text."""
    assert read_push(VALIDATION).validation == "512d38b6-c7b8-40c8-89fe-f46f9e9622b6"
    for code in ("x" * 129, "é", 1, None):
        event = {**VALIDATION[0], "data": {"validationCode": code}}
        assert read_push([event]).validation is None


@pytest.mark.parametrize(
    "body",
    [
        *({}, [], "push", 1, None, {"events": []}, {"events": {}}, {"events": [1, None]}),
        {"zen": "Keep it logically awesome.", "hook_id": 1},
        quay(docker_tags=["latest"], build_id="1"),
        azure("ping"),
    ],
)
def test_an_unknown_body_names_nothing(body: object) -> None:
    """A body that fits no format has no sender and no repository."""
    assert read_push(body) == Push(None)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("ghcr.io/Org/App:v1", "org/app"),
        ("ghcr.io/org/deep/app@sha256:1", "org/deep/app"),
        ("ghcr.io", None),
    ],
)
def test_a_repository_is_read_from_a_url(url: str, name: str | None) -> None:
    """The name is between the host and the tag or digest."""
    expected = () if name is None else (name,)
    assert read_push(github("package", url, "v1")).repositories == expected


@pytest.mark.parametrize("name", ["x" * 256, "", 1, None, ["team/api"], {"name": "team/api"}])
def test_a_name_that_cannot_be_one_is_dropped(name: Any) -> None:
    """A name that is too long, empty or no text names no repository."""
    assert read_push(docker_hub(name, "v1")).repositories == ()


@pytest.mark.parametrize("name", ["../../etc", "a\x1b[2Jb", "a b", "team/*", "%2e%2e", "\ud7ff"])
def test_a_hostile_name_stays_text(name: str) -> None:
    """A name is returned as it was sent: it is only looked up."""
    assert read_push(docker_hub(name, "v1")).repositories == (name,)


@pytest.mark.parametrize("other", [None, 1, "", "x", [], {}, [[]], {"a": {}}])
def test_a_sample_with_a_wrong_value_is_read(other: object) -> None:
    """Whichever value of a sample is replaced, names of repositories are texts within bounds."""
    for sample in SAMPLES:
        for body in mutated(sample.body, other):
            for name in read_push(body, sample.event_type).repositories:
                assert 0 < len(name) <= 255


@given(JSON, st.none() | st.text(max_size=30))
def test_any_json_is_read(body: Any, event_type: str | None) -> None:
    """No JSON value raises an error."""
    push = read_push(body, event_type)
    assert all(isinstance(name, str) for name in push.repositories)
    assert msgspec.json.encode(push)

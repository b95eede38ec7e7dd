"""Pure: which repositories a registry's notification of a push is about.

`SENDERS` is a table: for each sender, it has the paths in the JSON body at which the repository,
the tag and the kind of the event are. A new sender is a new row. docs/push-hints.md names the
source of each row.

The texts that `read_push` returns come from the network. They only serve as keys for a lookup.
"""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, Final

import msgspec

from tagsync.models import TAG

MAX_EVENTS: Final = 500
"""Maximum number of events of one body that are read. The others are ignored."""

_MAX_NAME: Final = 255
"""Maximum length of a repository's name (OCI distribution specification), in characters."""

_MAX_CODE: Final = 128
"""Maximum length of Azure's validation code, in characters."""


class Sender(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table: one format of notifications.

    A path names keys, separated by dots. ``[]`` after a key means each member of its array.

    Attributes:
        name: The name of the sender in the log.
        events: Path of the events. Empty if the body is one event, or an array of events.
        kind: Path of an event's kind. None if the format has pushes of tags only.
        with_tag: Globs over the kinds that count if the event names a tag. Registries also report
            pushes of layers, and of images without a tag.
        always: Globs over the kinds that count without a tag, too, such as deletions by digest.
        repository: Path of the repository's name.
        tags: Path of the tags.
        is_url: Whether the repository is written as ``host/namespace/name:tag``.
    """

    name: str
    events: str = ""
    kind: str | None = None
    with_tag: tuple[str, ...] = ()
    always: tuple[str, ...] = ()
    repository: str
    tags: str
    is_url: bool = False


_AZURE_TYPE: Final = "Microsoft.ContainerRegistry"

SENDERS: Final = (
    Sender(
        name="distribution",  # docker-registry, its successor distribution, and GitLab
        events="events[]",
        kind="action",
        with_tag=("push",),
        always=("delete",),
        repository="target.repository",
        tags="target.tag",
    ),
    Sender(
        name="harbor",
        kind="type",
        with_tag=("PUSH_ARTIFACT",),
        always=("DELETE_ARTIFACT",),
        repository="event_data.repository.repo_full_name",
        tags="event_data.resources[].tag",
    ),
    Sender(
        name="harbor-cloudevents",
        kind="type",
        with_tag=("harbor.artifact.pushed", "harbor.tag.created"),
        always=("harbor.artifact.deleted",),
        repository="data.repository.repo_full_name",
        tags="data.resources[].tag",
    ),
    Sender(
        name="docker-hub",
        repository="repository.repo_name",
        tags="push_data.tag",
    ),
    Sender(
        name="quay",
        repository="repository",
        tags="updated_tags[]",
    ),
    *(
        Sender(
            name="github",
            kind="action",
            # An image without a tag is hard to tell from one with a tag, so each push counts.
            always=("published", "updated"),
            repository=f"{event}.package_version.package_url",
            tags=f"{event}.package_version.container_metadata.tag.name",
            is_url=True,
        )
        for event in ("package", "registry_package")
    ),
    Sender(
        name="azure",
        kind="action",
        with_tag=("push",),
        always=("delete",),
        repository="target.repository",
        tags="target.tag",
    ),
    *(
        Sender(
            name="azure-event-grid",
            kind=key,
            with_tag=(f"{_AZURE_TYPE}.ImagePushed",),
            always=(f"{_AZURE_TYPE}.ImageDeleted",),
            repository="data.target.repository",
            tags="data.target.tag",
        )
        for key in ("eventType", "type")
    ),
    Sender(
        name="zot",
        kind="type",
        with_tag=("*.image.updated",),  # zot's key typePrefix sets what is before it
        always=("*.image.deleted",),
        repository="data.name",
        tags="data.reference",
    ),
)
"""All formats. The first one whose paths fit a body is that of the body."""


class Push(msgspec.Struct, frozen=True):
    """The content of a notification.

    Attributes:
        sender: Name of the sender. None if no format fits the body.
        repositories: Names of the repositories whose tags may have changed, each once, in order.
        validation: The code that Azure's Event Grid wants back before it sends events. None for
            all other bodies.
    """

    sender: str | None
    repositories: tuple[str, ...] = ()
    validation: str | None = None


def read_push(body: object, event_type: str | None = None) -> Push:
    """Return what a notification says.

    Args:
        body: The decoded JSON.
        event_type: The header ``Ce-Type``, with which CloudEvents are sent in binary mode. The body
            is then only the data of the event. None without this header.
    """
    if event_type is not None:
        body = {"type": event_type, "data": body}
    if (code := _validation_code(body)) is not None:
        return Push("azure-event-grid", validation=code)
    for sender in SENDERS:
        events = [event for event in _events(sender, body) if _fits(sender, event)]
        if events:
            names = (name for event in events for name in _changed(sender, event))
            return Push(sender.name, tuple(dict.fromkeys(names)))
    return Push(None)


def _validation_code(body: object) -> str | None:
    for event in _values(body, "[]" if isinstance(body, list) else ""):
        if _first(event, "eventType") != "Microsoft.EventGrid.SubscriptionValidationEvent":
            return None
        code = _first(event, "data.validationCode")
        return code if code and len(code) <= _MAX_CODE and code.isascii() else None
    return None


def _events(sender: Sender, body: object) -> list[object]:
    path = sender.events or ("[]" if isinstance(body, list) else "")
    return [event for event, _ in zip(_values(body, path), range(MAX_EVENTS), strict=False)]


def _fits(sender: Sender, event: object) -> bool:
    """Return whether an event has this sender's format, whatever its kind."""
    if _first(event, sender.repository) is None:
        return False
    return _first(event, sender.kind or sender.tags) is not None


def _changed(sender: Sender, event: object) -> Iterator[str]:
    """Yield the name of the event's repository if one of its tags may have changed."""
    kind = _first(event, sender.kind) if sender.kind else None
    if not _matches(kind, sender.always):
        if kind is not None and not _matches(kind, sender.with_tag):
            return
        if not any(_is_tag(value) for value in _values(event, sender.tags)):
            return
    name = _first(event, sender.repository) or ""
    if sender.is_url:
        name = _name_in_url(name)
    if 0 < len(name) <= _MAX_NAME:
        yield name


def _matches(kind: str | None, globs: tuple[str, ...]) -> bool:
    return kind is not None and any(fnmatchcase(kind, glob) for glob in globs)


def _is_tag(value: object) -> bool:
    return isinstance(value, str) and TAG.fullmatch(value) is not None


def _name_in_url(url: str) -> str:
    """Return the repository of ``host/namespace/name:tag``, in lower case as registries have it."""
    _, _, path = url.partition("/")
    return path.partition("@")[0].partition(":")[0].lower()


def _first(value: object, path: str) -> str | None:
    """Return the first value at a path if it is a text that is not empty, and otherwise None."""
    first = next(_values(value, path), None)
    return first if isinstance(first, str) and first else None


def _values(value: Any, path: str) -> Iterator[Any]:
    """Yield the values at a path. A path that the value does not have yields nothing."""
    step, _, rest = path.partition(".")
    key, array, _ = step.partition("[]")
    if key:
        if not isinstance(value, dict) or key not in value:
            return
        value = value[key]
    found = value if array else [value]
    if not isinstance(found, list):
        return
    for member in found:
        if rest:
            yield from _values(member, rest)
        else:
            yield member

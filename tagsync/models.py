"""What the parts of tagsync tell each other: frozen values, no behaviour beyond their own meaning.

Times that tagsync took are text, ``YYYY-MM-DDTHH:MM:SS.mmmZ`` in UTC, so that the order of the text
is the order of time (see `timestamp`). Times that a registry claims stay as it sent them.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

OCI_REPOSITORY: Final = re.compile(
    r"(?=.{1,255}\Z)[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*)*"
)
"""What an OCI registry may call a repository (distribution specification, "Pulling manifests")."""

GONE: Final = "the registry answers that the repository does not exist"
"""What the observation of a repository says that was known and is no more."""

Clock = Callable[[], datetime]
"""Gives the present moment, aware of its time zone; injected so that tests own the time."""

Kind = Literal["added", "updated", "deleted"]
"""What happened to a tag."""

ObservedOutcome = Literal["ok", "failed", "held"]
"""How a poll ended, as the observations keep it."""


def utc_now() -> datetime:
    """The present moment, in UTC."""
    return datetime.now(UTC)


def timestamp(moment: datetime) -> str:
    """The text by which a moment that tagsync took is stored: UTC, with milliseconds.

    Args:
        moment: aware of its time zone.
    """
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_timestamp(text: str) -> datetime:
    """The moment that `timestamp` wrote."""
    return datetime.fromisoformat(text)


class Secret:
    """A credential that shows itself only to the one who asks for its value.

    Its ``repr`` and ``str`` are stars, so that neither a log nor a crash report can hold it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def reveal(self) -> str:
        """The value itself, for the one request that needs it."""
        return self._value


def redact(text: str, secrets: Iterable[Secret]) -> str:
    """The text with every secret in it replaced by stars."""
    # The longest first: one may be the beginning of another.
    for value in sorted((secret.reveal() for secret in secrets), key=len, reverse=True):
        text = text.replace(value, "***") if value else text
    return text


class NoCredential(msgspec.Struct, frozen=True):
    """Whoever asks is answered."""


class TokenCredential(msgspec.Struct, frozen=True):
    """A token of the vendor's identity service (IAM) that somebody else renews."""

    token: Secret


class KeyCredential(msgspec.Struct, frozen=True):
    """An access key (AK/SK), permanent, or temporary and with its security token."""

    access_key: Secret
    secret_key: Secret
    security_token: Secret | None = None
    project_id: str | None = None


class PasswordCredential(msgspec.Struct, frozen=True):
    """A user of the vendor's identity service (IAM), and the project to sign in to."""

    iam_endpoint: str
    username: str
    password: Secret
    domain: str
    project: str


class AgencyCredential(msgspec.Struct, frozen=True):
    """The agency of the cloud host that tagsync runs on, known to its metadata service."""

    metadata_endpoint: str


class BasicCredential(msgspec.Struct, frozen=True):
    """A user of an OCI registry, or of whoever gives tokens for it."""

    username: str
    password: Secret


class DockerCredential(msgspec.Struct, frozen=True):
    """Whatever Docker is logged in with: its ``config.json``, and the helpers that this names."""

    path: Path


Credential = (
    NoCredential
    | TokenCredential
    | KeyCredential
    | PasswordCredential
    | AgencyCredential
    | BasicCredential
    | DockerCredential
)
"""What a registry is asked with."""


class Tag(msgspec.Struct, frozen=True, gc=False):
    """One tag, with every documented field of its row but the manifest, which the digest names.

    The attributes are the columns of ``tags`` and the keys of ``changes.fields``. Where they differ
    from the registry's own names: ``registry_id`` and ``registry_repo_id`` are SWR's ``id`` and
    ``repo_id``. A field that the registry did not send is null. ``digest`` is null for a tag
    that is listed but was not resolved.
    """

    tag: str
    digest: str | None = None
    image_id: str | None = None
    schema: int | None = None
    size: int | None = None
    path: str | None = None
    internal_path: str | None = None
    is_trusted: bool | None = None
    tag_type: int | None = None
    scanned: bool | None = None
    registry_id: int | None = None
    registry_repo_id: int | None = None
    domain_id: str | None = None
    created: str | None = None
    updated: str | None = None


FIELDS: Final[tuple[str, ...]] = tuple(Tag.__struct_fields__[1:])
"""Every attribute of a tag that can change, in the order in which changes name them."""


class Image(msgspec.Struct, frozen=True, gc=False):
    """What a digest names.

    Attributes:
        digest: as the registry names it, ``sha256:…``.
        image_id: the digest of its configuration, as the registry sent it.
        media_type: what the manifest says of itself.
        schema: the Docker protocol's version, 1 or 2.
        size: in bytes, as the registry sent it.
        manifest: the manifest's exact text, where there is one.
        verified: whether those bytes hash to the digest and name the configuration that the
            registry claims; null without bytes.
    """

    digest: str
    image_id: str | None = None
    media_type: str | None = None
    schema: int | None = None
    size: int | None = None
    manifest: str | None = None
    verified: bool | None = None


def _none_recorded(_: Collection[str]) -> Set[str]:
    return frozenset()


class Scope(msgspec.Struct, frozen=True):
    """What of a repository's tags is wanted beyond their names, where it has to be asked for.

    A registry whose list of tags holds digests and manifests gives them all.

    Attributes:
        tags: globs over the names of the tags that are resolved; the digest of others is null.
        manifests: whether the manifests of the digests are fetched, and of the images that an
            index names.
        recorded: which of some digests need no manifest, because it is recorded already.
        seen: tags that another read has resolved just before, and that are taken as they are.
    """

    tags: tuple[str, ...] = ("*",)
    manifests: bool = False
    recorded: Callable[[Collection[str]], Set[str]] = _none_recorded
    seen: Mapping[str, Tag] = {}

    def has(self, name: str) -> bool:
        """Whether a tag of this name is to be resolved."""
        return any(fnmatchcase(name, glob) for glob in self.tags)


EVERYTHING: Final = Scope()
"""Every tag resolved, and no manifest that is not sent unasked."""


class Listing(msgspec.Struct, frozen=True):
    """One complete read of a repository's tags, checked.

    Attributes:
        tags: by name.
        images: what the tags point to, by digest, each once.
        children: what the indexes among these name and was fetched with them, by digest.
        started_at: when the first request was sent.
        finished_at: when the last byte was read: each tag was seen between the two.
        fingerprint: of what was read; equal fingerprints are equal listings. Null where the
            listing was put together from more than one read, or is to be read again.
        pages: how many answers it was read from; above one it is no snapshot.
        steady: false where the registry may list other tags when asked twice in a row, so that
            even a single page is no snapshot.
        requests: how many requests were sent, those tried again included.
        size: bytes of all bodies.
        unverified: the tags whose manifest is not what its digest or its image_id says.
        missing: the tags that are listed and whose manifest the registry denies to have.
        unfetched: why manifests that are wanted could not be had yet; null if all were.
        exists: false where the registry answered that there is no such repository.
    """

    tags: Mapping[str, Tag]
    images: Mapping[str, Image]
    started_at: str
    finished_at: str
    fingerprint: str | None
    pages: int = 1
    requests: int = 1
    size: int = 0
    unverified: tuple[str, ...] = ()
    exists: bool = True
    children: Mapping[str, Image] = {}
    steady: bool = True
    missing: tuple[str, ...] = ()
    unfetched: str | None = None


class Unchanged(msgspec.Struct, frozen=True):
    """A complete read that found the last recorded listing again; attributes as there."""

    started_at: str
    finished_at: str
    fingerprint: str
    requests: int = 1
    size: int = 0


def is_move(kind: Kind, old_digest: str | None, new_digest: str | None) -> bool:
    """Whether a change tells that a tag points to something else than before.

    From or to a null digest it tells no more than that tagsync began or ceased to resolve the tag.
    """
    return kind == "updated" and None not in {old_digest, new_digest} and old_digest != new_digest


class Change(msgspec.Struct, frozen=True, gc=False):
    """What happened to one tag between two listings.

    Attributes:
        fields: each documented field that differs, as ``(old, new)``; a tag that is added differs
            from nothing in every field that is not null.
    """

    tag: str
    kind: Kind
    old_digest: str | None
    new_digest: str | None
    fields: dict[str, tuple[Any, Any]]

    @property
    def moved(self) -> bool:
        """Whether the tag points to something else than before; see `is_move`."""
        return is_move(self.kind, self.old_digest, self.new_digest)


class Repository(msgspec.Struct, frozen=True, order=True):
    """Which repository: the configured registry's name, and its own, ``namespace/name``."""

    registry: str
    name: str

    @property
    def full_name(self) -> str:
        """``registry/namespace/name``, by which people and patterns call it."""
        return f"{self.registry}/{self.name}"


class Watch(msgspec.Struct, frozen=True, dict=True):
    """Which repositories of a registry to poll, and how.

    Attributes:
        registry: its configured name.
        repositories: exact names, ``namespace/name``, and globs in which ``*`` crosses slashes.
        exclude: exact names and globs that are left out again.
        interval: how often each is meant to be polled, unless ``cron`` says when.
        cron: the five fields of a crontab's line, in UTC.
        jitter: by how much each poll is put off at random, at most.
        discovery_interval: how often the globs are expanded again.
        agreeing_listings: how many listings in a row have to agree on a deletion that is hard to
            believe.
        shared: whether what other accounts share is looked for too.
        tags: globs over the tags that are resolved, see `Scope`.
        manifests: whether manifests are fetched, see `Scope`.
    """

    registry: str
    repositories: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    interval: timedelta = timedelta(minutes=5)
    cron: str | None = None
    jitter: timedelta = timedelta()
    discovery_interval: timedelta = timedelta(minutes=15)
    agreeing_listings: int = 2
    shared: bool = False
    tags: tuple[str, ...] = ("*",)
    manifests: bool = False

    @cached_property
    def named(self) -> tuple[Repository, ...]:
        """The repositories that are spelled out."""
        names = (name for name in self.repositories if not is_glob(name))
        return tuple(Repository(self.registry, name) for name in names)

    @cached_property
    def globs(self) -> tuple[str, ...]:
        """The patterns that discovery has to expand."""
        return tuple(name for name in self.repositories if is_glob(name))

    def has(self, repository: Repository) -> bool:
        """Whether a repository is among those to be polled."""
        if repository.registry != self.registry:
            return False
        if any(fnmatchcase(repository.name, pattern) for pattern in self.exclude):
            return False
        return repository in self._spelled_out or any(
            fnmatchcase(repository.name, glob) for glob in self.globs
        )

    @cached_property
    def _spelled_out(self) -> frozenset[Repository]:
        """Thousands may be, and all of them are asked for: 50 million comparisons for 10,000."""
        return frozenset(self.named)


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine itself, which no network lies before."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_glob(pattern: str) -> bool:
    """Whether a pattern may match more than the name that it spells."""
    return any(character in pattern for character in "*?[")


def watch_of(repository: Repository, watches: Iterable[Watch]) -> Watch | None:
    """The watch that has a repository: the first one that matches, or null."""
    return next((watch for watch in watches if watch.has(repository)), None)


class RecordedChange(msgspec.Struct, frozen=True, gc=False):
    """A change as the history holds it.

    Attributes:
        not_before: it happened after this; null where it was there when we first looked.
        observed_at: it happened no later than this.
        hash: chains it to the change before it.
    """

    id: int
    tag: str
    kind: Kind
    old_digest: str | None
    new_digest: str | None
    not_before: str | None
    observed_at: str
    hash: str

    @property
    def moved(self) -> bool:
        """Whether the tag points to something else than before; see `is_move`."""
        return is_move(self.kind, self.old_digest, self.new_digest)

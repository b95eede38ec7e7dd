"""Immutable value types shared by all packages, and globs over names."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, Final, Literal

import msgspec

OCI_REPOSITORY: Final = re.compile(
    r"(?=.{1,255}\Z)[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*)*"
)
"""The pattern of valid repository names.

It is that of the OCI distribution specification, "Pulling manifests".
"""

TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
"""The pattern of valid tags (OCI distribution specification, "Pulling manifests")."""

Kind = Literal["added", "updated", "deleted"]
"""The kind of a change."""


class Repository(msgspec.Struct, frozen=True, order=True):
    """A repository of a configured registry.

    Attributes:
        registry: Name of the registry in the configuration.
        name: Name of the repository within the registry, ``namespace/name``.
    """

    registry: str
    name: str

    @property
    def full_name(self) -> str:
        """``registry/namespace/name``, as people write it and patterns match it."""
        return f"{self.registry}/{self.name}"


class Tag(msgspec.Struct, frozen=True, gc=False):
    """One tag, with every documented field of a registry's list except the manifest.

    The attributes are the columns of ``tags`` and the keys of ``changes.fields``. Two of them have
    other names in SWR: SWR's ``id`` is ``registry_id``, and SWR's ``repo_id`` is
    ``registry_repo_id``. An attribute is None if the registry did not send it. ``digest`` is also
    None if the tag was listed but not resolved.
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
"""The attributes of a tag that can change, in the order in which a change lists them."""


class Image(msgspec.Struct, frozen=True, gc=False):
    """An image, identified by the digest of its manifest.

    Attributes:
        digest: Digest of the manifest, ``sha256:…``, as the registry sent it.
        image_id: Digest of the image's configuration. A verified manifest that references one
            decides; otherwise it is as the registry sent it.
        media_type: Media type that the manifest states.
        schema: Version of the manifest format, 1 or 2. Decided like ``image_id``.
        size: Size of configuration and layers in bytes. Decided like ``image_id``.
        manifest: Exact text of the manifest. None if the registry did not send it.
        verified: Whether the hash of the manifest is the digest. None if ``manifest`` is None.
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


def _none_stored() -> "Mapping[str, Tag]":
    return {}


def _never_left(_tag: str, _digest: str) -> str | None:
    return None


class Distrust(msgspec.Struct, frozen=True):
    """Why a registry's own list of a repository is not used until the next start.

    Attributes:
        source: The name of the list.
        tag: The tag for which HEAD contradicted the list.
        listed: The digest that the list had.
        head: The digest that HEAD had.
        first_at: When HEAD first contradicted this digest of the list.
        confirmed_at: When HEAD contradicted it again.
    """

    source: str
    tag: str
    listed: str
    head: str
    first_at: str
    confirmed_at: str


class ListUse(msgspec.Struct, frozen=True):
    """How a repository's tags are resolved to digests.

    Attributes:
        source: The name of the registry's own list, or ``head``.
        tags: Number of tags of the repository.
        idle_requests: Number of requests of a poll that finds no change, on average.
        reason: Why no list is used, in a phrase. None if one is used.
        offered: Whether the registry has a list of the tags of this repository, which may be
            refused.
    """

    source: str
    tags: int
    idle_requests: int
    reason: str | None = None
    offered: bool = False


class Scope(msgspec.Struct, frozen=True):
    """Options for a listing: which tags to resolve, and whether to fetch manifests.

    If a registry's tag list already contains digests and manifests, the client for this registry
    ignores the options.

    Attributes:
        tags: Globs over tag names. A tag that matches no glob is listed without a digest.
        exclude_tags: Globs over tag names. A tag that matches one is listed without a digest, too.
        manifests: Whether to fetch manifests, also those that an index references.
        recorded: A function that receives digests and returns the digests whose manifests are
            recorded. These manifests are not fetched again.
        seen: Tags that an earlier read of the same poll has resolved, by name. The client takes
            them from here and does not resolve them again.
        confirms: Whether this is the second read of a poll, which confirms a deletion. No
            registry's own list takes part in it.
        confirm_missing: Whether to confirm each missing manifest by a GET request, although the
            recorded listing lacked the same manifests.
        stored: A function that returns the recorded tags of the repository, by name. It is called
            only if a registry's own list is compared with them.
        turn: Number of complete listings of the repository so far. It decides which tags are
            resolved although a registry's own list has their digests.
        left_at: A function that receives a tag and a digest, and returns when the tag was observed
            to have left this digest. None if it points to it, or never did. It is called only if
            HEAD contradicts a registry's own list.
    """

    tags: tuple[str, ...] = ("*",)
    exclude_tags: tuple[str, ...] = ()
    manifests: bool = False
    recorded: Callable[[Collection[str]], Set[str]] = _none_recorded
    seen: Mapping[str, Tag] = {}
    confirms: bool = False
    confirm_missing: bool = True
    stored: Callable[[], Mapping[str, Tag]] = _none_stored
    turn: int = 0
    left_at: Callable[[str, str], str | None] = _never_left

    def has(self, name: str) -> bool:
        """Return whether a tag with this name has to be resolved."""
        if any(fnmatchcase(name, glob) for glob in self.exclude_tags):
            return False
        return any(fnmatchcase(name, glob) for glob in self.tags)


EVERYTHING: Final = Scope()
"""The options that resolve every tag and fetch no manifests."""


class Listing(msgspec.Struct, frozen=True):
    """One complete and consistent read of a repository's tags.

    Attributes:
        tags: The tags by name.
        images: The images that tags point to, by digest.
        started_at: The time when the first request was sent.
        finished_at: The time when the last byte arrived. Each tag was read between ``started_at``
            and this time.
        fingerprint: Hash of everything that was read. Equal fingerprints mean equal listings. None
            if a later listing cannot be compared with this one: some manifests could not be
            fetched, two different reads were merged, or the repository does not exist.
        pages: Number of responses from which the listing was read. If the number is more than 1,
            the listing is not a snapshot of one moment.
        requests: Number of requests, retries included.
        size: Total size of the response bodies, in bytes.
        unverified: Names of the tags whose manifest does not match its digest or image_id.
        wrong_manifests: For each of these tags whose manifest does not match its digest, the digest
            of the manifest that the registry sent. If it sent a wrong manifest for one that the
            tag's index references, it is the digest of that one.
        exists: False if the registry answered that the repository does not exist.
        children: Images that indexes reference and that were fetched with these indexes, by
            digest.
        steady: False if two identical requests may return different tags, so that even one page
            is not a consistent snapshot.
        missing: Names of the tags that the registry lists although it has no manifest for them.
        failed: Tags whose manifest could not be read for another reason, each with the error.
        bad_names: Listed texts that cannot be the name of a tag. They are left out.
        unfetched: Why some manifests could not be fetched. None if all manifests were fetched.
        bad_fields: The fields of each tag that the registry sent in another type than documented.
            They are None in the tag.
        source: Where the digests came from: ``swr``, ``head``, or the name of a registry's own list
            of which at least one digest was believed.
        distrust: Why a registry's own list is not used until the next start. None if it is used, or
            if there is none.
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
    failed: Mapping[str, str] = {}
    bad_names: tuple[str, ...] = ()
    unfetched: str | None = None
    bad_fields: Mapping[str, tuple[str, ...]] = {}
    source: str | None = None
    wrong_manifests: Mapping[str, str] = {}
    distrust: Distrust | None = None


class Unchanged(msgspec.Struct, frozen=True):
    """A complete read that returned the recorded listing again.

    The attributes are those of `Listing`.
    """

    started_at: str
    finished_at: str
    fingerprint: str
    requests: int = 1
    size: int = 0
    distrust: Distrust | None = None


def is_move(kind: Kind, old_digest: str | None, new_digest: str | None) -> bool:
    """Return whether a change makes a tag point to another image.

    If one of the digests of an updated tag is None, the change is not a move. It only means that
    tagsync started or stopped resolving the tag.
    """
    return kind == "updated" and None not in {old_digest, new_digest} and old_digest != new_digest


class Change(msgspec.Struct, frozen=True, gc=False):
    """The difference of one tag between two listings.

    Attributes:
        fields: Each documented field that differs, as ``(old, new)``. If the tag was added or
            deleted, these are all fields that are not None.
    """

    tag: str
    kind: Kind
    old_digest: str | None
    new_digest: str | None
    fields: dict[str, tuple[Any, Any]]

    @property
    def moved(self) -> bool:
        """Whether the tag now points to another image; see `is_move`."""
        return is_move(self.kind, self.old_digest, self.new_digest)


class RecordedChange(msgspec.Struct, frozen=True, gc=False):
    """A change as the history stores it. Each attribute is a column of ``changes``.

    Attributes:
        fields: The fields that differ, as JSON.
        not_before: The change happened after this time. None if the tag existed when the
            repository was first listed.
        observed_at: The change happened no later than this time.
        hash: SHA-256 of this change and the hash of the previous change.
    """

    id: int
    tag: str
    kind: Kind
    old_digest: str | None
    new_digest: str | None
    fields: str
    not_before: str | None
    observed_at: str
    hash: str

    @property
    def moved(self) -> bool:
        """Whether the tag now points to another image; see `is_move`."""
        return is_move(self.kind, self.old_digest, self.new_digest)


class Watch(msgspec.Struct, frozen=True, dict=True):
    """Which repositories of a registry to poll, and how.

    Attributes:
        registry: Name of the registry in the configuration.
        repositories: Exact names, ``namespace/name``, and globs in which ``*`` also matches a
            slash.
        exclude: Exact names and globs of repositories to leave out.
        interval: Time between two polls of a repository, unless ``cron`` is set.
        cron: The five fields of a crontab line, in UTC.
        jitter: Maximum random delay of each poll.
        discovery_interval: Time between two searches for repositories that match the globs.
        agreeing_listings: Number of consecutive listings that have to agree before a suspicious
            deletion is recorded.
        agree_after: How far apart these listings have to be. None means half the time between two
            polls, at least a minute.
        shared: Whether to discover repositories that other accounts share.
        tags: Globs over the tags to resolve, see `Scope`.
        exclude_tags: Globs over the tags not to resolve, see `Scope`.
        immutable: Globs over the tags that must not move.
        manifests: Whether to fetch manifests, see `Scope`.
        allow_empty: Whether the globs may match nothing without being reported.
    """

    registry: str
    repositories: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    interval: timedelta = timedelta(minutes=5)
    cron: str | None = None
    jitter: timedelta = timedelta()
    discovery_interval: timedelta = timedelta(minutes=15)
    agreeing_listings: int = 2
    agree_after: timedelta | None = None
    shared: bool = False
    tags: tuple[str, ...] = ("*",)
    exclude_tags: tuple[str, ...] = ()
    immutable: tuple[str, ...] = ()
    manifests: bool = False
    allow_empty: bool = False

    @cached_property
    def named(self) -> tuple[Repository, ...]:
        """The repositories that the watch names exactly, without a glob."""
        names = (name for name in self.repositories if not is_glob(name))
        return tuple(Repository(self.registry, name) for name in names)

    @cached_property
    def globs(self) -> tuple[str, ...]:
        """The globs, which discovery expands to the names of repositories."""
        return tuple(name for name in self.repositories if is_glob(name))

    def has(self, repository: Repository) -> bool:
        """Return whether this watch covers a repository."""
        if repository.registry != self.registry:
            return False
        if any(fnmatchcase(repository.name, pattern) for pattern in self.exclude):
            return False
        return repository in self._named_set or self._matches(repository)

    def discovers(self, repository: Repository) -> bool:
        """Return whether this watch covers a repository by one of its globs."""
        return self.has(repository) and self._matches(repository)

    def _matches(self, repository: Repository) -> bool:
        return any(fnmatchcase(repository.name, glob) for glob in self.globs)

    def names(self, repository: Repository) -> bool:
        """Return whether this watch names a repository exactly."""
        return repository in self._named_set

    @cached_property
    def _named_set(self) -> frozenset[Repository]:
        # A set, because a watch may name thousands of repositories and each is looked up.
        return frozenset(self.named)


def is_glob(pattern: str) -> bool:
    """Return whether a pattern is a glob: it may match other names than its own text."""
    return any(character in pattern for character in "*?[")


def watch_of(repository: Repository, watches: Iterable[Watch]) -> Watch | None:
    """Return the first watch that covers a repository, or None."""
    return next((watch for watch in watches if watch.has(repository)), None)

"""The contents of the emulated registry: repositories, their tags and images."""

import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final, NamedTuple, Self

from tagsync.clock import Clock
from tagsync.emulator.answers import encode_json
from tagsync.models import Image

REFERENCE_REPOSITORY: Final = "namespace/busybox"
"""The repository of the example in the vendor's reference."""

_MANIFEST_TYPE: Final = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG_TYPE: Final = "application/vnd.docker.container.image.v1+json"
_LAYER_TYPE: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_INDEX_TYPES: Final = frozenset(
    {
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.index.v1+json",
    }
)

_CONSTANT_FIELDS: Final[Mapping[str, Any]] = {
    "is_trusted": False,
    "deleted": None,
    "domain_id": "0a1b2c3d4e5f60718293a4b5c6d7e8f9",
    "scanned": False,
}
"""Fields of a tag's row that have the same values in every new row."""


class TagRow(NamedTuple):
    """A row of the tag list.

    The row is encoded as JSON when it is created. If a field cannot be encoded, the error is
    therefore raised in the test that pushes the tag, and not in the server.
    """

    fields: Mapping[str, Any]
    encoded: bytes

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Encode the fields and return the row."""
        return cls(fields, encode_json(fields))

    @property
    def sort_id(self) -> int:
        """The row's id, or 0 if a test has replaced the id with a value of another type."""
        row_id = self.fields["id"]
        return row_id if isinstance(row_id, int) else 0


@dataclass(slots=True)
class EmulatedRepository:
    """A repository with the rows of its tags, in the order of their creation.

    Attributes:
        earlier: The rows of earlier states, the oldest first, for the fault ``stale``.
    """

    id: int
    namespace: str
    name: str
    shared: bool
    created_at: str
    updated_at: str
    rows: dict[str, TagRow] = field(default_factory=dict)
    earlier: deque[Mapping[str, TagRow]] = field(default_factory=deque)

    @property
    def sort_id(self) -> int:
        """The repository's id, which orders repositories that a list would sort equally."""
        return self.id

    @property
    def full_name(self) -> str:
        """The organization and the name: ``namespace/name``."""
        return f"{self.namespace}/{self.name}"

    def keep_state(self) -> None:
        """Keep the current rows as an earlier state, before they are changed."""
        if self.earlier.maxlen:
            self.earlier.append(dict(self.rows))

    def pull_paths(self, tag: str = "") -> dict[str, str]:
        """Return the paths for ``docker pull`` from outside and from inside the cluster."""
        image = f"{self.full_name}:{tag}" if tag else self.full_name
        return {
            "path": f"swr.example.com/{image}",
            "internal_path": f"10.0.0.1:20202/{image}",
        }

    def fields(self, total: int) -> dict[str, Any]:
        """Return the repository's row in a list that has ``total`` rows."""
        sizes = (row.fields.get("size") for row in self.rows.values())
        return {
            "id": self.id,
            "name": self.name,
            "namespace": self.namespace,
            "is_public": False,
            "num_images": len(self.rows),
            "size": sum(size for size in sizes if isinstance(size, int)),
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            **self.pull_paths(),
            "tags": list(self.rows),
            "total_range": total,
        }


class Repositories:
    """All repositories of the emulated registry.

    The class is not thread-safe: `Emulator` holds its lock during each call.

    Attributes:
        organizations: The id of each organization of the account, by the organization's name. The
            organization of a shared repository belongs to another account and is not included.
    """

    def __init__(self, clock: Clock, keeps_states: int = 0) -> None:
        """Begin without repositories.

        Args:
            clock: The clock for the times of rows and repositories.
            keeps_states: The number of earlier states that each repository keeps.
        """
        self.organizations: dict[str, int] = {}
        self._keeps_states = keeps_states
        self._clock = clock
        self._repositories: dict[str, EmulatedRepository] = {}
        self._last_id = 0

    def __iter__(self) -> Iterator[EmulatedRepository]:
        return iter(self._repositories.values())

    def get(self, full_name: str) -> EmulatedRepository | None:
        """Return a repository, or `None` if it does not exist."""
        return self._repositories.get(full_name)

    def find(self, full_name: str, tag: str | None = None) -> EmulatedRepository:
        """Return a repository. If a tag is given, check that the repository contains it.

        Raises:
            LookupError: If the repository or the tag does not exist.
        """
        found = self._repositories.get(full_name)
        if found is None:
            raise LookupError(f"the emulator has no repository {full_name!r}")
        if tag is not None and tag not in found.rows:
            raise LookupError(f"the emulator has no tag {tag!r} in {full_name!r}")
        return found

    def has_namespace(self, namespace: str) -> bool:
        """Return whether an organization exists in this account or owns a repository."""
        return namespace in self.organizations or any(
            repository.namespace == namespace for repository in self
        )

    def create(self, full_name: str, *, shared: bool = False) -> EmulatedRepository:
        """Return a repository. If it does not exist, create it and its organization.

        The organization of a shared repository is not created, because it belongs to another
        account.

        Raises:
            ValueError: If the name has no namespace.
        """
        if full_name in self._repositories:
            return self._repositories[full_name]
        namespace, _, name = full_name.partition("/")
        if not (namespace and name):
            raise ValueError(f"invalid repository name {full_name!r}: write it as namespace/name")
        if not shared and namespace not in self.organizations:
            self.organizations[namespace] = self._next_id()
        now = _format_time(self._clock())
        created = EmulatedRepository(self._next_id(), namespace, name, shared, now, now)
        created.earlier = deque(maxlen=self._keeps_states)
        self._repositories[full_name] = created
        return created

    def push(
        self, full_name: str, tag: str, image: Mapping[str, Any], fields: Mapping[str, Any]
    ) -> None:
        """Point a tag to an image, and create the repository if it does not exist.

        Args:
            full_name: The repository, ``namespace/name``.
            tag: The tag's name.
            image: The fields of the row that depend on the image; see `image_fields`.
            fields: Values that replace values of the row, by field.
        """
        repository = self.create(full_name)
        now = _format_time(self._clock())
        before = repository.rows[tag].fields if tag in repository.rows else {}
        if before.get("digest") == image["digest"]:
            row = TagRow.from_fields({**before, "updated": now, **fields})
        else:
            row = TagRow.from_fields(
                {
                    "id": self._next_id(),
                    "repo_id": repository.id,
                    "Tag": tag,
                    **image,
                    **repository.pull_paths(tag),
                    **_CONSTANT_FIELDS,
                    "created": before.get("created", now),
                    "updated": now,
                    **fields,
                }
            )
        repository.keep_state()
        repository.rows[tag] = row
        repository.updated_at = now

    def push_reference_example(self) -> str:
        """Add the example of the vendor's reference and return its digest."""
        row = TagRow.from_fields(_reference_example())
        self.create(REFERENCE_REPOSITORY).rows["latest"] = row
        return str(row.fields["digest"])

    def set_fields(self, full_name: str, tag: str, fields: Mapping[str, Any]) -> None:
        """Change some fields of a tag's row."""
        repository = self.find(full_name, tag)
        row = TagRow.from_fields({**repository.rows[tag].fields, **fields})
        repository.keep_state()
        repository.rows[tag] = row

    def delete_tag(self, full_name: str, tag: str) -> None:
        """Delete a tag and keep its repository."""
        repository = self.find(full_name, tag)
        repository.keep_state()
        del repository.rows[tag]
        repository.updated_at = _format_time(self._clock())

    def delete(self, full_name: str) -> None:
        """Delete a repository and keep its organization."""
        del self._repositories[self.find(full_name).full_name]

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id


def image_fields(content: str | Image) -> dict[str, Any]:
    """Return the fields of a tag's row that depend on its image.

    Args:
        content: Text or an image. For text, the fields are those of an image that is made from the
            text and has a manifest with two layers. An image is used without any check.
    """
    if isinstance(content, Image):
        return {
            "image_id": content.image_id,
            "manifest": content.manifest,
            "digest": content.digest,
            "schema": content.schema,
            "size": content.size,
            "tag_type": 1 if content.media_type in _INDEX_TYPES else 0,
        }
    text = content.encode(errors="surrogatepass")
    config = {"mediaType": _CONFIG_TYPE, "size": 1862, "digest": _digest(b"config " + text)}
    layers = [
        {"mediaType": _LAYER_TYPE, "size": 1292800, "digest": _digest(b"base layer")},
        {"mediaType": _LAYER_TYPE, "size": 10240 + len(text), "digest": _digest(b"layer " + text)},
    ]
    return _manifest_fields(config, layers)


def _manifest_fields(config: dict[str, Any], layers: list[dict[str, Any]]) -> dict[str, Any]:
    content = {"schemaVersion": 2, "mediaType": _MANIFEST_TYPE, "config": config, "layers": layers}
    manifest = json.dumps(content, separators=(",", ":"))
    return {
        # As in the reference's example, an image_id does not begin with the algorithm.
        "image_id": config["digest"].removeprefix("sha256:"),
        "manifest": manifest,
        "digest": _digest(manifest.encode()),
        "schema": 2,
        "size": config["size"] + sum(layer["size"] for layer in layers),
        "tag_type": 0,
    }


def _reference_example() -> dict[str, Any]:
    config = "741f24a795d6d93d7c6edd11780d63c13e16c39615dd9d223378a57a836f2ee6"
    layers = {
        "8ac8bfaff55af948c796026ee867448c5b5b5d9dd3549f4006d9759b25d4a893": 1292800,
        "77ddbf3a9fe11e81761a0f9df43a28e3e6f29bbb53c0c8cf71cd7efa69729aed": 10240,
    }
    image = _manifest_fields(
        {"mediaType": _CONFIG_TYPE, "size": 1862, "digest": f"sha256:{config}"},
        [
            {"mediaType": _LAYER_TYPE, "size": size, "digest": f"sha256:{digest}"}
            for digest, size in layers.items()
        ],
    )
    return {
        "id": 0,
        "repo_id": 0,
        "Tag": "latest",
        **image,
        "path": "192.158.24.86/namespace/busybox:latest",
        "internal_path": "10.125.0.198:20202/namespace/busybox:latest",
        "is_trusted": False,
        "created": "2018-07-06T06:18:55Z",
        "updated": "2018-07-06T06:18:55Z",
        "deleted": None,
        "scanned": False,
    }


def _digest(content: bytes) -> str:
    return f"sha256:{sha256(content).hexdigest()}"


def _format_time(moment: datetime) -> str:
    """Format a time as in the reference's example: in UTC, with whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

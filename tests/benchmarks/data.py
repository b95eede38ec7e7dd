"""Tag lists as SWR sends them, generated in the size and shape of a real registry.

Every tag has an image of its own, which is the worst case for the database; real tags often share
one. Everything depends on the arguments alone, so that each run measures the same bytes.
"""

from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from tagsync.registries.swr.api import tags_path

NAMESPACE: Final = "bench"

MEDIA_TYPE: Final = "application/vnd.docker.distribution.manifest.v2+json"
"""The media type of each manifest."""

_BASE_LAYERS, _OWN_LAYERS = 5, 2
"""Layers shared by the images of a repository, and layers of one image alone."""

_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_encode = msgspec.json.Encoder().encode


def repository(number: int) -> str:
    """Return the name of the repository with this number."""
    return f"{NAMESPACE}/service-{number:05}"


def write(folder: Path, repositories: int, tags: int, *, moved: int = 0) -> int:
    """Write the tag list of each repository below the folder, at its request path.

    Args:
        folder: The root of a web server.
        repositories: The number of repositories.
        tags: The number of tags in each.
        moved: The number of tags in each that point to another image than with 0.

    Returns:
        The size of all lists in bytes.
    """
    total = 0
    for number in range(repositories):
        name = repository(number)
        path = folder / tags_path(name).lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        total += path.write_bytes(listing(name, tags, moved=moved))
    return total


def listing(name: str, tags: int, *, moved: int = 0) -> bytes:
    """Return a repository's tag list, newest tag first, as SWR can order it."""
    base = [_digest(f"{name} base {layer}") for layer in range(_BASE_LAYERS)]
    builds = [*range(tags, tags + moved), *range(tags - 1, moved - 1, -1)]
    return _encode([_row(name, build % tags, build, base) for build in builds])


def _row(name: str, number: int, build: int, base: list[str]) -> dict[str, object]:
    """Return one row: the tag with this number, pointing to the image of this build."""
    own = [_digest(f"{name} {build} {layer}") for layer in range(_OWN_LAYERS)]
    image_id = _digest(f"{name} {build} config")
    manifest = _encode(
        {
            "schemaVersion": 2,
            "mediaType": MEDIA_TYPE,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "size": 7023,
                "digest": f"sha256:{image_id}",
            },
            "layers": [
                {"mediaType": _LAYER, "size": int(layer[:6], 16), "digest": f"sha256:{layer}"}
                for layer in (*base, *own)
            ],
        }
    ).decode()
    day, second = divmod(build, 86400)
    tag = f"1.{number // 100}.{number % 100}-{_digest(f'{name} {number}')[:8]}"
    updated = f"2026-01-{1 + day:02}T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}Z"
    return {
        "id": int(image_id[:8], 16),
        "repo_id": int(base[0][:6], 16),
        "Tag": tag,
        "image_id": image_id,
        "manifest": manifest,
        "digest": f"sha256:{_digest(manifest)}",
        "schema": 2,
        "path": f"swr.eu-de.otc.t-systems.com/{name}:{tag}",
        "internal_path": f"100.125.7.25:20202/{name}:{tag}",
        "size": 7023 + sum(int(layer[:6], 16) for layer in (*base, *own)),
        "is_trusted": False,
        "created": updated,
        "updated": updated,
        "deleted": None,
        "scanned": False,
        "tag_type": 0,
        "domain_id": "0123456789abcdef0123456789abcdef",
    }


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()

"""skopeo, and an OCI image layout from which it copies."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.docker_registry import (
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    DockerRegistry,
    digest_of,
)


class Layout:
    """An OCI image layout on disk, the source from which skopeo copies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._entries: list[dict[str, Any]] = []
        (folder / "blobs" / "sha256").mkdir(parents=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def add(self, tag: str, *contents: str) -> str:
        """Add an image, or an index of several images; return its digest."""
        manifests = [self._image(content) for content in contents]
        for number, manifest in enumerate(manifests):
            manifest["platform"] = {"os": "linux", "architecture": ("amd64", "arm64")[number]}
        (entry, *others) = manifests
        if others:
            index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
            entry = self._blob(json.dumps(index).encode(), OCI_INDEX)
        self._entries.append({**entry, "annotations": {"org.opencontainers.image.ref.name": tag}})
        index = {"schemaVersion": 2, "manifests": self._entries}
        (self.folder / "index.json").write_text(json.dumps(index))
        return str(entry["digest"])

    def _image(self, content: str) -> dict[str, Any]:
        layer = f"the layer of {content}".encode()
        diff_ids = {"type": "layers", "diff_ids": [digest_of(layer)]}
        config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": diff_ids}
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self._blob(json.dumps(config).encode(), OCI_CONFIG),
            "layers": [self._blob(layer, OCI_LAYER)],
        }
        return self._blob(json.dumps(manifest).encode(), OCI_MANIFEST)

    def _blob(self, content: bytes, media_type: str) -> dict[str, Any]:
        digest = digest_of(content)
        (self.folder / "blobs" / "sha256" / digest.removeprefix("sha256:")).write_bytes(content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def copy(self, tag: str, to: str) -> None:
        """Let skopeo push the image or index of a tag."""
        source = f"oci:{self.folder}:{tag}"
        skopeo(
            "--insecure-policy",
            "copy",
            "--all",
            "--preserve-digests",
            "--dest-tls-verify=false",
            source,
            f"docker://{to}",
        )


def skopeo(*arguments: str, environment: Mapping[str, str] | None = None) -> bytes:
    """Run skopeo and return its output; it inherits no proxy and no credentials."""
    done = subprocess.run(
        ["skopeo", *arguments],
        capture_output=True,
        check=False,
        timeout=60,
        env={"PATH": os.environ["PATH"], **(environment or {})},
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def skopeo_tags(registry: DockerRegistry, repository: str) -> dict[str, str]:
    """Return the digest of each tag, computed from the bytes that skopeo gets."""
    reference = f"docker://{registry.host}/{repository}"
    listed: Sequence[str] = json.loads(skopeo("list-tags", "--tls-verify=false", reference))["Tags"]
    raw = ("inspect", "--raw", "--tls-verify=false")
    return {tag: digest_of(skopeo(*raw, f"{reference}:{tag}")) for tag in listed}

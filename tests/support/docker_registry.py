"""Run Debian's docker-registry on loopback, and push to it."""

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from shutil import which
from typing import Any

import httpx
import pytest

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"


def require(*programs: str) -> None:
    """Skip the module if a program is missing; in CI, fail instead."""
    missing = [program for program in programs if not which(program)]
    if not missing:
        return
    reason = f"needs {' and '.join(missing)}, which Debian has in packages of that name"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason, allow_module_level=True)


def digest_of(content: bytes) -> str:
    """Return the SHA-256 digest of some bytes, as registries write it."""
    return f"sha256:{sha256(content).hexdigest()}"


class DockerRegistry:
    """A running registry, with a client that pushes to it."""

    def __init__(
        self, data: Path, host: str, scheme: str, headers: Mapping[str, str], verify: Any
    ) -> None:
        self._data = data
        self.host = host
        self.url = f"{scheme}://{host}"
        # An explicit transport makes httpx ignore the proxy settings of the environment.
        self.client = httpx.Client(
            base_url=self.url,
            headers=headers,
            transport=httpx.HTTPTransport(verify=verify),
            timeout=30,
        )

    def push(self, repository: str, tag: str, content: str) -> str:
        """Push an image of one layer under a tag, and return its digest."""
        config = json.dumps({"architecture": "amd64", "os": "linux", "about": content}).encode()
        layer = f"the layer of {content}".encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self.blob(repository, config, OCI_CONFIG),
            "layers": [self.blob(repository, layer, OCI_LAYER)],
        }
        return self.put(repository, tag, json.dumps(manifest).encode(), OCI_MANIFEST)

    def push_index(self, repository: str, tag: str, platforms: Mapping[str, str]) -> str:
        """Push one image per architecture and an index of them; return its digest."""
        manifests = []
        for architecture, content in platforms.items():
            digest = self.push(repository, f"{tag}-{architecture}", content)
            size = len(self.manifest(repository, digest))
            platform = {"architecture": architecture, "os": "linux"}
            manifests.append(
                {"mediaType": OCI_MANIFEST, "digest": digest, "size": size, "platform": platform}
            )
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
        return self.put(repository, tag, json.dumps(index).encode(), OCI_INDEX)

    def blob(self, repository: str, content: bytes, media_type: str) -> dict[str, Any]:
        """Upload a blob unless it is there, and return its descriptor."""
        digest = digest_of(content)
        if self.client.head(f"/v2/{repository}/blobs/{digest}").status_code != 200:
            begun = self.client.post(f"/v2/{repository}/blobs/uploads/").raise_for_status()
            url = httpx.URL(begun.headers["Location"]).copy_merge_params({"digest": digest})
            headers = {"Content-Type": "application/octet-stream"}
            self.client.put(url, content=content, headers=headers).raise_for_status()
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def put(self, repository: str, reference: str, manifest: bytes, media_type: str) -> str:
        """Put a manifest under a tag or a digest, and return its digest."""
        headers = {"Content-Type": media_type}
        path = f"/v2/{repository}/manifests/{reference}"
        self.client.put(path, content=manifest, headers=headers).raise_for_status()
        return digest_of(manifest)

    def tag(self, repository: str, tag: str, digest: str) -> None:
        """Write a tag into the registry's own files, which is fast even for thousands."""
        manifests = self._data / f"docker/registry/v2/repositories/{repository}/_manifests"
        link = manifests / "tags" / tag / "current" / "link"
        link.parent.mkdir(parents=True)
        link.write_text(digest)

    def manifest(self, repository: str, reference: str) -> bytes:
        """Return the bytes of a manifest."""
        headers = {"Accept": f"{OCI_MANIFEST}, {OCI_INDEX}"}
        path = f"/v2/{repository}/manifests/{reference}"
        return self.client.get(path, headers=headers).raise_for_status().content

    def delete(self, repository: str, digest: str) -> None:
        """Delete a manifest, and with it every tag that points to it."""
        self.client.delete(f"/v2/{repository}/manifests/{digest}").raise_for_status()


@contextmanager
def running(
    folder: Path,
    *,
    auth: Mapping[str, Any] | None = None,
    tls: tuple[Path, Path] | None = None,
    verify: Any = True,
    headers: Mapping[str, str] | None = None,
) -> Iterator[DockerRegistry]:
    """Run a registry on a port that the system chose.

    Args:
        folder: Where the registry keeps its files.
        auth: The ``auth`` section of its configuration.
        tls: The files of its certificate and key.
        verify: How the client that fills it verifies the certificate, as httpx takes it.
        headers: Headers that this client sends.
    """
    http: dict[str, Any] = {"addr": "127.0.0.1:0", "secret": "made-up"}
    if tls:
        http["tls"] = {"certificate": str(tls[0]), "key": str(tls[1])}
    data = folder / "data"
    configuration = {
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(data)}, "delete": {"enabled": True}},
        "http": http,
        **({"auth": auth} if auth else {}),
    }
    path = folder / "registry.yml"
    path.write_text(json.dumps(configuration))  # JSON is valid YAML
    log = folder / "registry.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(path)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"]},
        )
    try:
        host = _address(process, log)
        scheme = "https" if tls else "http"
        registry = DockerRegistry(data, host, scheme, headers or {}, verify)
        with registry.client:
            yield registry
    finally:
        process.terminate()
        process.wait(10)


def _address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Return the host and port of the registry, which it logs once it listens."""
    follow = ["timeout", "20", "tail", "-n", "+1", "-F", f"--pid={process.pid}", str(log)]
    with subprocess.Popen(follow, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as tail:
        assert tail.stdout
        for line in tail.stdout:
            if match := re.search(rb"listening on (127\.0\.0\.1:\d+)", line):
                tail.terminate()
                return match[1].decode()
    raise RuntimeError(f"docker-registry did not begin to listen: {log.read_text()}")


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

"""Run docker-registry or its successor distribution on loopback, and push to it."""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from shutil import copytree, which
from typing import Any, Final

import httpx
import pytest

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"

Auth = Callable[[httpx.Request], httpx.Request]
"""A function that adds the credential to a request."""

_PATIENCE: Final = 60
"""Seconds that a registry may take to start or to stop."""


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
    """A running registry, with a client that pushes to it.

    Attributes:
        host: Its host and port.
        url: Its URL, without a path.
        client: Sends the requests.
    """

    def __init__(
        self, data: Path, host: str, *, scheme: str = "http", auth: Auth | None, verify: Any
    ) -> None:
        self._repositories = data / "docker" / "registry" / "v2" / "repositories"
        self.host = host
        self.url = f"{scheme}://{host}"
        # An explicit transport makes httpx ignore the proxy settings of the environment.
        self.client = httpx.Client(
            base_url=self.url,
            auth=auth,
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
        tags = self._repositories / repository / "_manifests" / "tags"
        link = tags / tag / "current" / "link"
        link.parent.mkdir(parents=True)
        link.write_text(digest)

    def copy(self, repository: str, to: str) -> None:
        """Copy a repository within the registry's own files, which is fast even for thousands."""
        copytree(self._repositories / repository, self._repositories / to)

    def manifest(self, repository: str, reference: str) -> bytes:
        """Return the bytes of a manifest."""
        headers = {"Accept": f"{OCI_MANIFEST}, {OCI_INDEX}"}
        path = f"/v2/{repository}/manifests/{reference}"
        return self.client.get(path, headers=headers).raise_for_status().content

    def tags(self, repository: str) -> dict[str, str]:
        """Return the digest of each tag, as the registry tells it."""
        listed = self.client.get(f"/v2/{repository}/tags/list").raise_for_status().json()
        return {tag: self.digest(repository, tag) for tag in listed["tags"] or ()}

    def digest(self, repository: str, tag: str) -> str:
        """Return the digest of a tag, as the registry tells it."""
        headers = {"Accept": f"{OCI_MANIFEST}, {OCI_INDEX}"}
        head = self.client.head(f"/v2/{repository}/manifests/{tag}", headers=headers)
        return str(head.raise_for_status().headers["Docker-Content-Digest"])

    def delete(self, repository: str, reference: str) -> None:
        """Delete a tag, or a manifest by its digest, and with it every tag that points to it."""
        self.client.delete(f"/v2/{repository}/manifests/{reference}").raise_for_status()


@contextmanager
def running(
    folder: Path,
    *,
    program: str = "docker-registry",
    access: Mapping[str, Any] | None = None,
    tls: tuple[Path, Path] | None = None,
    verify: Any = True,
    auth: Auth | None = None,
    notify: Sequence[Mapping[str, Any]] = (),
) -> Iterator[DockerRegistry]:
    """Run a registry on a port that the system chose.

    Args:
        folder: Where the registry keeps its files.
        program: ``docker-registry``, or the path of distribution's ``registry``.
        access: The ``auth`` section of its configuration.
        tls: The files of its certificate and key.
        verify: How the client that fills it verifies the certificate, as httpx takes it.
        auth: The credential of this client.
        notify: Where it sends notifications: the endpoints of its configuration.
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
        **({"auth": access} if access else {}),
        **({"notifications": {"endpoints": list(notify)}} if notify else {}),
    }
    path = folder / "registry.yml"
    path.write_text(json.dumps(configuration))  # JSON is valid YAML
    command = [program, "serve", str(path)]
    with serving(command, folder, r"listening on 127\.0\.0\.1:(\d+)") as host:
        scheme = "https" if tls else "http"
        registry = DockerRegistry(data, host, scheme=scheme, auth=auth, verify=verify)
        with registry.client:
            yield registry


@contextmanager
def serving(command: Sequence[str], folder: Path, listening: str) -> Iterator[str]:
    """Run a server, and yield its host and port once it listens.

    Args:
        command: The server's program and arguments.
        folder: Where its log is written.
        listening: A regular expression for the line that it logs then. Its group is the port.
    """
    log = folder / "registry.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"]},
        )
    try:
        yield f"127.0.0.1:{_port(process, log, listening)}"
    finally:
        process.terminate()
        try:
            process.wait(_PATIENCE)
        finally:
            process.kill()


def _port(process: "subprocess.Popen[bytes]", log: Path, listening: str) -> int:
    """Return the port of a server, which it logs once it listens."""
    until = time.monotonic() + _PATIENCE
    while process.poll() is None and time.monotonic() < until:
        if match := re.search(listening, log.read_text()):
            return int(match[1])
        time.sleep(0.01)
    raise RuntimeError(f"{process.args!r} does not listen: {log.read_text()}")

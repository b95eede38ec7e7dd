"""An OCI registry in memory that misbehaves like the emulated SWR."""

import json
import re
from collections import defaultdict, deque
from collections.abc import Mapping
from threading import Lock
from typing import Any, Final

from tagsync.clock import utc_now
from tagsync.emulator import Fault, Faults, Request
from tagsync.emulator.answers import json_answer
from tagsync.emulator.faults import TRUTH, Lie, Page, RecordedLie
from tagsync.emulator.http import Answer
from tests.support.docker_registry import OCI_MANIFEST, digest_of
from tests.support.oci import errors, image

_TAGS: Final = re.compile(r"/v2/(.+)/tags/list")
_MANIFEST: Final = re.compile(r"/v2/(.+)/manifests/([^/]+)")


class OciRegistry:
    """Repositories whose lists and manifests come from the current state or a stale replica.

    A stale replica answers the requests for a repository, from one that begins a listing until the
    next that does. It has the lists and the tags of an earlier state. Manifests can always be got
    by digest. All methods are thread-safe.

    Attributes:
        requests: The number of requests.
    """

    def __init__(self, faults: Faults, *, page: int, keeps_states: int) -> None:
        """Begin without repositories.

        Args:
            faults: The faults. Of the lies, ``shifted``, ``repeated``, ``capped`` and ``total`` are
                never told.
            page: The maximum number of tags of a page.
            keeps_states: The number of earlier states that a stale replica may have.
        """
        self.requests = 0
        self._faults = faults
        self._page = page
        self._tags: dict[str, dict[str, str]] = {}
        self._earlier: dict[str, deque[dict[str, str]]] = defaultdict(
            lambda: deque(maxlen=keeps_states)
        )
        self._replicas: dict[str, Mapping[str, Any]] = {}
        self._manifests: dict[str, bytes] = {}
        self._lock = Lock()

    def push(self, repository: str, tag: str, content: str) -> str:
        """Push an image that follows from the content under a tag, and return its digest."""
        manifest = image(content)
        digest = digest_of(manifest)
        with self._lock:
            self._manifests[digest] = manifest
            tags = self._tags.setdefault(repository, {})
            self._earlier[repository].append(dict(tags))
            tags[tag] = digest
        return digest

    def delete(self, repository: str, tag: str) -> None:
        """Delete a tag."""
        with self._lock:
            self._earlier[repository].append(dict(self._tags[repository]))
            del self._tags[repository][tag]

    def delete_repository(self, repository: str) -> None:
        """Delete a repository with its tags; no replica has it any more."""
        with self._lock:
            del self._tags[repository], self._earlier[repository]
            self._replicas.pop(repository, None)

    def respond(self, request: Request) -> Answer:
        """Answer a request."""
        with self._lock:
            self.requests += 1
            mishap = self._faults.draw_mishap(public=True, has_total=False)
            answer = mishap.refusal or self._handle(request)
            answer = mishap.apply(answer, utc_now())
        if mishap.delay:
            self._faults.sleep(mishap.delay)
        return answer

    def _handle(self, request: Request) -> Answer:
        path = request.path
        if path == "/v2/_catalog":
            return json_answer({"repositories": sorted(self._tags)})
        if match := _TAGS.fullmatch(path):
            return self._list(match[1], request.query)
        if match := _MANIFEST.fullmatch(path):
            return self._manifest(match[1], match[2])
        return json_answer({}) if path == "/v2/" else _refuse("UNSUPPORTED")

    def _list(self, repository: str, query: Mapping[str, str]) -> Answer:
        """Answer with a page of tags, and a link to the next page if there is one."""
        if repository not in self._tags:
            return _refuse("NAME_UNKNOWN")
        last = query.get("last", "")
        size = min(int(query.get("n", "1000")), self._page)
        lie = self._draw_lie(repository, last, size)
        if lie.vanished:
            return _refuse("NAME_UNKNOWN")
        names = [tag for tag in sorted(self._state(repository)) if tag > last]
        page = [tag for tag in names if tag not in lie.hidden][: size if lie.cap is None else 0]
        headers = {}
        if page and page[-1] != names[-1]:
            headers["Link"] = f'</v2/{repository}/tags/list?n={size}&last={page[-1]}>; rel="next"'
        return json_answer({"name": repository, "tags": page}, headers)

    def _draw_lie(self, repository: str, last: str, size: int) -> Lie:
        if not last:
            self._replicas.pop(repository, None)
        tags = self._tags[repository]
        offset = sum(tag <= last for tag in tags)
        page = Page(repository, tags, offset, size, False, tuple(self._earlier[repository]))
        lie = self._faults.draw_lie(page) if self._faults.on else TRUTH
        if lie.rows is not None:
            self._replicas[repository] = lie.rows
        return lie

    def _state(self, repository: str) -> Mapping[str, str]:
        return self._replicas.get(repository, self._tags.get(repository, {}))

    def _manifest(self, repository: str, reference: str) -> Answer:
        digest = reference if ":" in reference else self._state(repository).get(reference)
        content = self._manifests.get(digest or "")
        if content is None:
            return _refuse("MANIFEST_UNKNOWN")
        if digest != reference and repository in self._replicas:
            rows = self._replicas[repository]
            self._faults.lies.append(RecordedLie(utc_now(), repository, Fault.STALE, rows))
        headers = {"Docker-Content-Digest": digest_of(content), "Content-Type": OCI_MANIFEST}
        return Answer(200, content, headers)


def _refuse(code: str) -> Answer:
    return Answer(404, json.dumps(errors(code)).encode(), {"Content-Type": "application/json"})

"""Pure: the text of a search, as the names and the digest that it contains.

People paste what they have: a name, a digest, a command that pulls an image, a line of YAML, or the
values of a Helm chart. Nothing here decides whether a name is recorded.
"""

import re
from typing import Final, NamedTuple

from tagsync.audit.digest_search import LEAST_DIGITS

LONGEST_SEARCH: Final = 1000
"""Maximum number of characters of a search."""


class Search(NamedTuple):
    """The parts of a search.

    Attributes:
        name: A repository, with or without its registry, or a part of its name; or a tag, if the
            text does not tell. Empty if the text is only a digest.
        host: The host before the name. Empty if the text has none.
        tag: The tag after the name. None if there is none.
        digest: A digest or its beginning. None if there is none.
    """

    name: str = ""
    host: str = ""
    tag: str | None = None
    digest: str | None = None

    @property
    def is_reference(self) -> bool:
        """Whether the text names a host, a tag of a repository, or a digest in a repository."""
        is_digest = self.digest == self.name
        return bool(self.name and not is_digest and (self.host or self.tag or self.digest))


def parse(text: str) -> Search:
    """Return the parts of the text of a search."""
    text = " ".join(text.split())
    values = _values(text)
    if "repository" in values:
        return _from_values(values)
    if "tag" in values or "digest" in values:
        return Search(values.get("tag", ""), digest=values.get("digest"))
    return _parse_reference(values.get("image") or _argument(text))


_VALUE: Final = re.compile(
    r"""(?:^|[\s.,{"'-])(image|registry|repository|tag|digest)["']?(?:: |=)"""
    r"""(?!(?:registry|repository|tag|digest): )(?:"([^"]*)"|'([^']*)'|([^\s"',}]+))"""
)
"""A key of YAML, of JSON, or of Helm's ``--set``, with its value. Not the tag of ``image:v1``.

In a pasted block of YAML, ``image: repository: …``, the first key has no value.
"""


def _values(text: str) -> dict[str, str]:
    """Return the values of the keys that charts and manifests of Kubernetes use for images."""
    found: dict[str, str] = {}
    for match in _VALUE.finditer(text):
        value = next(filter(None, match.groups()[1:]), "")
        if value:
            found.setdefault(match[1], value)
    return found


def _from_values(values: dict[str, str]) -> Search:
    prefix = f"{values['registry']}/" if "registry" in values else ""
    search = _parse_reference(prefix + values["repository"])
    return search._replace(
        tag=values.get("tag", search.tag), digest=values.get("digest", search.digest)
    )


_PROGRAMS: Final = frozenset(
    {"docker", "podman", "nerdctl", "crane", "skopeo", "ctr", "crictl", "buildah", "oras"}
)
_VERBS: Final = frozenset(
    {"pull", "run", "create", "inspect", "digest", "manifest", "image", "images", "copy", "get"}
)
_OPTIONS_WITH_VALUE: Final = frozenset({"--platform", "--name", "-n", "--namespace", "--tls-ca"})


def _argument(text: str) -> str:
    """Return the image of a command line or of a line of a Dockerfile; other text as it is."""
    words = text.removeprefix("$ ").removeprefix("sudo ").split(" ")
    if words[0].upper() == "FROM" and words[1:]:
        words[0] = "docker"
    if words[0] not in _PROGRAMS or not words[1:]:
        return text
    previous = ""
    for word in words[1:]:
        is_value = previous in _OPTIONS_WITH_VALUE
        previous = word
        if not (is_value or word.startswith("-") or word in _VERBS):
            return word
    return text


_DIGEST: Final = re.compile(rf"(?:sha256|sha512):\S*|[0-9a-f]{{{LEAST_DIGITS},128}}", re.IGNORECASE)
_BARE_DIGITS: Final = re.compile("[0-9a-fA-F]+")
_LONGEST_TAG: Final = 128
_API: Final = re.compile(r"(/|^)v2/(.+)/(?:manifests|blobs)/([^/]+)$")


def _parse_reference(text: str) -> Search:
    text = text.strip("\"' ,;")
    if _DIGEST.fullmatch(text):
        # A few digits may also be a part of a name.
        name = text if _BARE_DIGITS.fullmatch(text) and len(text) <= _LONGEST_TAG // 2 else ""
        return Search(name, digest=text)
    text = re.sub(r"^(?:https?|docker|oci)://", "", text)
    if api := _API.search(text):
        separator = "@" if ":" in api[3] else ":"
        text = f"{text[: api.start()]}{api[1]}{api[2]}{separator}{api[3]}"
    text, _, digest = text.partition("@")
    path, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:
        path, tag = text, ""
    host, slash, rest = path.partition("/")
    if not (slash and (any(mark in host for mark in ".:") or host == "localhost")):
        host, rest = "", path
    return Search(rest.strip("/"), host.lower(), tag or None, digest or None)

"""The text of a search, as the names and the digest that it contains."""

import pytest

from tagsync.web.search_text import Search, parse

HEX = "8ac8bfaff55af948c796026ee867448c5b5b5d9dd3549f4006d9759b25d4a893"
DIGEST = f"sha256:{HEX}"
API = Search("team/api", "registry.example.com", "v1")


@pytest.mark.parametrize(
    ("text", "search"),
    [
        ("", Search()),
        ("  api  ", Search("api")),
        ("team/api", Search("team/api")),
        ("swr/team/api", Search("swr/team/api")),
        ("v1.2.3", Search("v1.2.3")),
        ("swr/team/api:v1", Search("swr/team/api", tag="v1")),
        ("team/api/", Search("team/api")),
        ("nginx:1.27", Search("nginx", tag="1.27")),
        ("image:latest", Search("image", tag="latest")),
        (DIGEST, Search(digest=DIGEST)),
        (DIGEST.upper(), Search(digest=DIGEST.upper())),
        ("sha256:8ac8", Search(digest="sha256:8ac8")),
        ("sha256:xyz", Search(digest="sha256:xyz")),
        (f"sha512:{HEX}{HEX}", Search(digest=f"sha512:{HEX}{HEX}")),
        (HEX, Search(HEX, digest=HEX)),
        ("8ac8bf", Search("8ac8bf", digest="8ac8bf")),
        ("8ac8b", Search("8ac8b")),
        ("registry.example.com/team/api:v1", API),
        ("docker pull registry.example.com/team/api:v1", API),
        ("$ sudo docker pull -q registry.example.com/team/api:v1", API),
        ("docker pull --platform linux/arm64 registry.example.com/team/api:v1", API),
        ("docker pull --platform=linux/arm64 registry.example.com/team/api:v1", API),
        ("podman pull registry.example.com/team/api:v1", API),
        ("crane pull registry.example.com/team/api:v1 api.tar", API),
        ("crane digest registry.example.com/team/api:v1", API),
        ("skopeo inspect docker://registry.example.com/team/api:v1", API),
        ("FROM registry.example.com/team/api:v1 AS build", API),
        ("https://registry.example.com/team/api:v1", API),
        ("https://registry.example.com/v2/team/api/manifests/v1", API),
        (
            f"https://registry.example.com/v2/team/api/blobs/{DIGEST}",
            Search("team/api", "registry.example.com", digest=DIGEST),
        ),
        (
            f"docker pull registry.example.com/team/api:v1@{DIGEST}",
            API._replace(digest=DIGEST),
        ),
        (f"team/api@{DIGEST}", Search("team/api", digest=DIGEST)),
        ("localhost:5000/api", Search("api", "localhost:5000")),
        ("localhost/api:v1", Search("api", "localhost", "v1")),
        ("Registry.Example.com/team/api", Search("team/api", "registry.example.com")),
        ("docker pull nginx", Search("nginx")),
        ("docker", Search("docker")),
        ("docker pull", Search("docker pull")),
        ("image: registry.example.com/team/api:v1", API),
        ("- image: 'registry.example.com/team/api:v1'", API),
        ('"image": "registry.example.com/team/api:v1",', API),
        ('image: repository: registry.example.com/team/api tag: "v1"', API),
        ("image:\n  registry: registry.example.com\n  repository: team/api\n  tag: v1", API),
        ("--set image.repository=registry.example.com/team/api,image.tag=v1", API),
        (
            f"repository: team/api digest: {DIGEST}",
            Search("team/api", digest=DIGEST),
        ),
        ("tag: v1", Search("v1")),
        ("<script>alert(1)</script>", Search("<script>alert(1)</script>")),
        ("' OR 1=1 --", Search("OR 1=1 --")),
        ("a\0b\x1b[31m", Search("a\0b\x1b[31m")),
        ("@", Search()),
        (":", Search()),
        ("//", Search()),
    ],
)
def test_the_parts_of_a_search(text: str, search: Search) -> None:
    """A name, digest, reference, command, or line of YAML gives its parts."""
    assert parse(text) == search


def test_what_is_a_reference() -> None:
    """A bare name or digest is not a reference; a host, a tag or a digest after a name make one."""
    assert not any(parse(text).is_reference for text in ("", "team/api", DIGEST, HEX))
    references = ("a.b/api", "api:v1", f"api@{DIGEST}")
    assert all(parse(text).is_reference for text in references)

"""Names, URLs and keys that do not fit together."""

import json
from pathlib import Path

import pytest

from tagsync.config import parse
from tagsync.config.values import SecretName
from tagsync.errors import ConfigError
from tagsync.models import Repository
from tests.support.configurations import MINIMAL, OCI, SECRET, parsed, refusal, watching, with_token


def test_unknown_kind_of_registry_is_refused() -> None:
    """The error for an unknown kind of registry names the known kinds."""
    sentence = refusal(f"{MINIMAL}kind = 'quay'\n")
    assert "'quay'" in sentence
    assert "'swr'" in sentence


def test_repeated_registry_name_is_refused() -> None:
    """Each registry needs a name of its own, because full names begin with it."""
    assert "two registries are named 'swr'" in refusal(MINIMAL + MINIMAL)


@pytest.mark.parametrize("name", ["", "a/b", "a b", ".a", "-a", "ä", "a\\n", "*"])
def test_invalid_registry_name_is_refused(name: str) -> None:
    """A registry's name must be plain enough for patterns, logs and shells."""
    assert "invalid registry name" in refusal(MINIMAL.replace('"swr"', f'"{name}"'))


@pytest.mark.parametrize("name", ["team-a/*", "team-a/?", "team-[ab]/api", "*"])
def test_glob_names_no_repository(name: str) -> None:
    """A glob is accepted, and does not name a repository itself."""
    (watch,) = parsed(watching(name)).watches
    assert watch.globs == (name,)
    assert watch.named == ()


@pytest.mark.parametrize(
    "name",
    [
        *("", "api", "/", "/api", "team/", "team//api", "team/../api", "../api", "./api", "team/."),
        *("team/api:v1", "team/a b", "team/a\\n", "team/ä", "team/-a", "team/a%2Fb", "team/a$b"),
    ],
)
def test_invalid_repository_name_is_refused(name: str) -> None:
    """A name that does not fit into a path of the registry is refused."""
    assert "is not of the form namespace/name" in refusal(watching(name))


@pytest.mark.parametrize("name", ["a/b", "team_a/web/frontend", "_a/b.c-d__e", "9/9", "A/B"])
def test_valid_repository_name_is_accepted(name: str) -> None:
    """A repository has two or more plain parts."""
    (watch,) = parsed(watching(name)).watches
    assert watch.named == (Repository("swr", name),)


@pytest.mark.parametrize(
    "endpoint",
    [
        *(
            "",
            "swr-api.example.com",
            "https://",
            "ftp://swr-api.example.com",
            "//swr-api.example.com",
        ),
        *("https://h:port", "https://h:99999", "https://[::1", "https://h?x=1", "https://h#x"),
        "https://xn--/",
        f"https://user:{SECRET}@swr-api.example.com",
        f"https://{SECRET}@swr-api.example.com",
    ],
)
def test_invalid_endpoint_is_refused(endpoint: str) -> None:
    """An endpoint with a query, a fragment or credentials is refused, unquoted."""
    sentence = refusal(MINIMAL.replace("https://swr-api.example.com", endpoint))
    assert sentence.startswith("the endpoint of 'swr' ")
    assert SECRET not in sentence


@pytest.mark.parametrize(
    ("endpoint", "corrected"),
    [
        *(
            ("https://h/v2", "https://h"),
            ("https://h/v2/", "https://h"),
            ("https://h//", "https://h"),
        ),
        *(("https://h/x/v2//", "https://h/x"), ("https://h//v2", "https://h")),
        *(("https://h/x", "https://h/x"), ("https://h/v2/x", "https://h/v2/x")),
        *(("https://h/xv2", "https://h/xv2"), ("https://v2", "https://v2")),
        *(("https://h/v2/manage", "https://h"), ("HTTPS://H:5000/v2", "HTTPS://H:5000")),
    ],
)
def test_path_of_the_api_is_removed_from_an_endpoint(endpoint: str, corrected: str) -> None:
    """An endpoint that ends with the path of the API is corrected, because tagsync appends it."""
    text = MINIMAL.replace("https://swr-api.example.com", endpoint)
    assert parsed(text).registries["swr"].endpoint == corrected


@pytest.mark.parametrize(
    ("endpoint", "advice"),
    [
        ("registry.example.com", "write https://registry.example.com"),
        ("registry.example.com:5000/x", "write https://registry.example.com:5000/x"),
        ("//registry.example.com", "write https://registry.example.com"),
        ("localhost:5000", "write http://localhost:5000, or https://localhost:5000 if"),
        ("127.0.0.1:5000/v2/", "write http://127.0.0.1:5000, or https://127.0.0.1:5000 if"),
        ("[::1]:5000", "write http://[::1]:5000, or https://"),
    ],
)
@pytest.mark.parametrize("text", [MINIMAL, OCI])
def test_endpoint_without_a_scheme_is_refused_with_advice(
    text: str, endpoint: str, advice: str
) -> None:
    """The error for an endpoint without a scheme says what to write."""
    address = "https://swr-api.example.com" if text == MINIMAL else "https://registry.example.com"
    sentence = refusal(text.replace(address, endpoint))
    assert "has no scheme: " in sentence
    assert advice in sentence


def test_credentials_need_tls() -> None:
    """Credentials over http:// to another host are refused."""
    sentence = refusal(with_token('"env:SWR_TOKEN"', "http://swr-api.example.com"))
    assert "in the clear" in sentence
    assert "https://" in sentence


@pytest.mark.parametrize("host", ["127.0.0.1:5000", "127.3.2.1", "localhost", "[::1]:5000"])
def test_loopback_needs_no_tls(host: str) -> None:
    """Credentials over http:// to this machine are accepted."""
    text = with_token('"env:SWR_TOKEN"', f"http://{host}")
    assert parsed(text).registries["swr"].endpoint == f"http://{host}"


def test_anonymous_access_needs_no_tls() -> None:
    """Without credentials, http:// is accepted."""
    text = MINIMAL.replace("https://", "http://")
    assert parsed(text).registries["swr"].endpoint == "http://swr-api.example.com"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{OCI}client_key_file = 'key.pem'\n", ("client_key_file", "client_cert_file")),
        (f"{OCI}client_cert_file = ''\n", ("client_cert_file", "empty")),
        (f"{OCI}[registries.auth]\nkind = 'ecs'\n", ("'ecs'", "'docker'")),
        (f"{MINIMAL}[registries.auth]\nkind = 'docker'\n", ("'docker'", "'aksk'")),
        (
            f"{MINIMAL}[registries.auth]\nkind = 'basic'\nusername = 'u'\npassword = 'env:X'\n",
            ("'basic'", "'aksk'"),
        ),
        (f"{OCI}[registries.auth]\nkind = 'basic'\nusername = 'u'\n", ("password", "missing")),
        (f"{OCI}[registries.auth]\nkind = 'basic'\nusername = 'u'\npassword = 'x'\n", ("secret",)),
        (f"{OCI}ca_file = ''\n", ("ca_file",)),
        (f"{OCI}ca_fil = 'x'\n", ("ca_fil", "ca_file")),
        (f"{OCI}[[registries.watch]]\nrepositories = ['Team/A']\n", ("Team/A", "lower-case")),
        (f"{OCI}[[registries.watch]]\nrepositories = ['team/a:v1']\n", ("team/a:v1", "tags")),
        (f"{OCI}[[registries.watch]]\nrepositories = ['a']\nshared = true\n", ("shared", "swr")),
        (f"{OCI}[[registries.watch]]\nrepositories = ['a']\ntag = ['v*']\n", ("'tag'", "'tags'")),
        (f"{MINIMAL}[[registries.watch]]\nrepositories = ['a/b']\ntags = ['v*']\n", ("oci",)),
        (f"{MINIMAL}[[registries.watch]]\nrepositories = ['a/b']\nmanifests = true\n", ("oci",)),
        (
            f"{MINIMAL}[[registries.watch]]\nrepositories = ['a/b']\nexclude_tags = ['x']\n",
            ("oci",),
        ),
        (
            OCI.replace("registry.example.com", "hub.docker.com"),
            ("https://registry-1.docker.io",),
        ),
        (
            OCI.replace("registry.example.com", "registry-1.docker.io")
            + "[[registries.watch]]\nrepositories = ['busybox']\n",
            ("library/busybox",),
        ),
        (
            OCI.replace("https", "http")
            + "[registries.auth]\nkind = 'basic'\nusername = 'u'\npassword = 'env:X'\n",
            ("in the clear",),
        ),
    ],
)
def test_keys_must_fit_the_kind_of_registry(text: str, words: tuple[str, ...]) -> None:
    """A key or a name for another kind of registry is refused, with advice."""
    sentence = refusal(text)
    for word in words:
        assert word in sentence


@pytest.mark.parametrize("key", ["tags", "exclude_tags", "immutable"])
@pytest.mark.parametrize("glob", ["", "v 1", "team/api:v*", "v[1", "v*\u001b[31m"])
def test_impossible_tag_glob_is_refused(glob: str, key: str, tmp_path: Path) -> None:
    """A glob that no tag can match is refused, because it would do nothing."""
    watch = f"[[registries.watch]]\nrepositories = ['a/b']\n{key} = [{json.dumps(glob)}]\n"
    with pytest.raises(ConfigError, match=f"^{key}: .*matches no tag"):
        parse(f"{OCI}{watch}", {}, tmp_path)


@pytest.mark.parametrize(
    "extra",
    [
        'list = "tags"',
        '[registries.auth]\nkind = "token"\ntoken = "env:T"\nlist_token = "env:L"',
        '[registries.auth]\nkind = "none"\nlist_token = "env:L"',
    ],
)
def test_list_is_refused_where_it_makes_no_sense(extra: str) -> None:
    """SWR's only list has the digests, so a choice or a token for another list is a mistake."""
    sentence = refusal(f"{MINIMAL}{extra}\n")
    assert "list and list_token are for registries of kind 'oci'" in sentence
    assert "'swr'" in sentence


def test_list_of_an_oci_registry() -> None:
    """The registry's own list is used by default, and its token may come with each login."""
    assert parsed(OCI).registries["r"].list == "auto"
    assert parsed(f'{OCI}list = "tags"\n').registries["r"].list == "tags"
    assert "registries[0].list" in refusal(f'{OCI}list = "own"\n')
    for auth in (
        'kind = "none"',
        'kind = "docker"',
        'kind = "token"\ntoken = "env:T"',
        'kind = "basic"\nusername = "u"\npassword = "env:P"',
    ):
        text = f'{OCI}[registries.auth]\n{auth}\nlist_token = "env:L"\n'
        found = parsed(text).registries["r"].auth
        assert getattr(found, "list_token", None) == SecretName("env:L")


def test_token_of_a_list_is_not_sent_in_the_clear() -> None:
    """An anonymous registry over http:// may not have a token for its list."""
    plain = OCI.replace("https://", "http://")
    parsed(plain)
    text = f'{plain}[registries.auth]\nkind = "none"\nlist_token = "env:L"\n'
    assert "would send credentials in the clear" in refusal(text)

"""The configuration: what is taken, what is refused, and how the refusal is put."""

import json
from contextlib import chdir
from datetime import timedelta
from pathlib import Path

import pytest

from tagsync.config import SEARCHED, Config, find, load, parse
from tagsync.config.secret_sources import read_secret, resolve_credential
from tagsync.config.values import SecretName
from tagsync.errors import ConfigError
from tagsync.models import Repository
from tagsync.registries.credentials import DockerCredential, NoCredential, TokenCredential
from tagsync.registries.oci.docker_login import find_docker_config

FOLDER = Path("/srv/mirror")
SECRET = "hunter2-not-to-be-seen"

MINIMAL = """
[[registries]]
name = "swr"
endpoint = "https://swr-api.example.com"
"""

EVERYTHING = """
[store]
path = "mirror/tags.db"

[schedule]
interval = "1h30m"
jitter = "15s"
discovery_interval = "1h"

[metrics]
listen = ":9180"

[[registries]]
name = "swr-1.eu"
kind = "swr"
endpoint = "https://swr-api.example.com:8443/base"
concurrency = 3
requests_per_second = 2.5
timeout = "250ms"
retry_for = "2d"
max_listing_size = "512KiB"
agreeing_listings = 4

[registries.auth]
kind = "token"
token = "env:SWR_TOKEN"

[[registries.watch]]
repositories = ["team-a/api", "team-a/web/frontend"]
interval = "30s"

[[registries.watch]]
repositories = ["team_b/x.y-z"]
cron = "*/10 8-18 * * 1-5"
jitter = "90s"
discovery_interval = "5m"

[[registries]]
name = "other"
endpoint = "http://127.0.0.1:5000"

[[registries.watch]]
repositories = ["team-a/api"]
"""


def parsed(text: str) -> Config:
    return parse(text, {}, FOLDER)


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parsed(text)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def watching(*names: str) -> str:
    """A registry that watches these repositories, all in one table."""
    listed = ", ".join(f'"{name}"' for name in names)
    return f"{MINIMAL}\n[[registries.watch]]\nrepositories = [{listed}]\n"


def with_token(token: str, endpoint: str = "https://swr-api.example.com") -> str:
    """A registry whose auth has this TOML value as its token."""
    return (
        f'[[registries]]\nname = "swr"\nendpoint = "{endpoint}"\n'
        f'[registries.auth]\nkind = "token"\ntoken = {token}\n'
    )


def test_an_empty_file_is_a_configuration() -> None:
    """Without a single key everything has its default, and nothing is watched."""
    config = parsed("")
    assert config == Config(FOLDER / "tagsync.db", {}, (), None, FOLDER)


def test_the_defaults_of_a_registry() -> None:
    """A registry needs no more than a name and an endpoint."""
    registry = parsed(MINIMAL).registries["swr"]
    assert registry.kind == "swr"
    assert registry.auth == NoCredential()
    assert (registry.concurrency, registry.requests_per_second) == (8, 50.0)
    assert (registry.timeout, registry.retry_for) == (timedelta(seconds=30), timedelta(minutes=1))
    assert registry.max_listing_size == 256 * 1024 * 1024
    assert registry.agreeing_listings == 2
    assert registry.watch == []


def test_every_key_is_taken() -> None:
    """Each documented key reaches the configuration with its value."""
    config = parsed(EVERYTHING)
    assert config.database == FOLDER / "mirror/tags.db"
    assert config.listen == ("127.0.0.1", 9180)
    assert config.folder == FOLDER
    assert list(config.registries) == ["swr-1.eu", "other"]
    registry = config.registries["swr-1.eu"]
    assert registry.endpoint == "https://swr-api.example.com:8443/base"
    assert registry.auth == TokenCredential(SecretName("env:SWR_TOKEN"))
    assert (registry.concurrency, registry.requests_per_second) == (3, 2.5)
    assert registry.timeout == timedelta(milliseconds=250)
    assert registry.retry_for == timedelta(days=2)
    assert registry.max_listing_size == 512 * 1024
    assert registry.agreeing_listings == 4


def test_the_watched_repositories_keep_the_order_of_the_file() -> None:
    """Each watch has its repositories, in the file's order, as it or the schedule says."""
    watches = parsed(EVERYTHING).watches
    assert [(w.registry, w.repositories, w.interval, w.agreeing_listings) for w in watches] == [
        ("swr-1.eu", ("team-a/api", "team-a/web/frontend"), timedelta(seconds=30), 4),
        ("swr-1.eu", ("team_b/x.y-z",), timedelta(minutes=5), 4),
        ("other", ("team-a/api",), timedelta(minutes=90), 2),
    ]
    cron = "*/10 8-18 * * 1-5"
    second, minute = timedelta(seconds=1), timedelta(minutes=1)
    assert [(w.cron, w.jitter, w.discovery_interval) for w in watches] == [
        (None, 15 * second, 60 * minute),
        (cron, 90 * second, 5 * minute),
        (None, 15 * second, 60 * minute),
    ]


def test_the_jitter_that_is_left_out() -> None:
    """Without a jitter polls are put off by a tenth of the interval, and by ten seconds at most."""
    watch = f'{MINIMAL}[[registries.watch]]\nrepositories = ["a/b"]\ninterval = '
    (short,), (long,) = parsed(f'{watch}"20s"').watches, parsed(f'{watch}"1h"').watches
    assert (short.jitter, long.jitter) == (timedelta(seconds=2), timedelta(seconds=10))


@pytest.mark.parametrize(
    ("schedule", "watch", "said"),
    [
        ('interval = "5m"\ncron = "* * * * *"', "", "schedule has both interval and cron"),
        ("", 'interval = "5m"\ncron = "* * * * *"', "a watch of 'swr' has both"),
        ('jitter = "40s"', 'interval = "1m"', "jitter of more than half its interval"),
        ("", 'cron = "* * * *"', "invalid cron expression '* * * *'; write minute"),
        ("", 'cron = "* * * * * *"', "invalid cron expression '* * * * * *'; write minute"),
        ("", 'cron = "61 * * * *"', "invalid cron expression '61 * * * *' (Bad minute)"),
        ("", 'cron = "0 0 31 4 *"', "(Bad day-of-month)"),
        ("", "cron = 5", "invalid cron expression 5"),
    ],
)
def test_a_schedule_that_makes_no_sense(schedule: str, watch: str, said: str) -> None:
    """Contradictory, malformed and impossible times are refused with what to write instead."""
    table = f'[[registries.watch]]\nrepositories = ["a/b"]\n{watch}\n'
    assert said in refusal(f"[schedule]\n{schedule}\n{MINIMAL}{table}")


@pytest.mark.parametrize("listen", ["9180", "host:", "host:99999", "a b:1", "http://x:1", ""])
def test_an_address_that_is_none(listen: str) -> None:
    """What is no host and port is refused, with an example."""
    sentence = refusal(f'[metrics]\nlisten = "{listen}"\n')
    assert f"invalid address {listen!r}; write it like" in sentence


def test_an_address_without_a_host_is_on_loopback() -> None:
    """Metrics are for this host unless another address is asked for by name."""
    listens = [parsed(f'[metrics]\nlisten = "{each}"').listen for each in (":1", "[::1]:2", "h:3")]
    assert listens == [("127.0.0.1", 1), ("::1", 2), ("h", 3)]


@pytest.mark.parametrize(
    ("text", "key", "place", "nearest"),
    [
        ("[stor]\n", "stor", "", "store"),
        ('[store]\npaht = "x"\n', "paht", "store", "path"),
        ('[schedule]\nintervall = "5m"\n', "intervall", "schedule", "interval"),
        (f"{MINIMAL}concurency = 3\n", "concurency", "registries", "concurrency"),
        (f"{MINIMAL}[registries.auth]\nkind = 'none'\ntokn = 'x'\n", "tokn", "auth", "token"),
        (
            f"{MINIMAL}[[registries.watch]]\nrepository = []\n",
            "repository",
            "watch",
            "repositories",
        ),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest(
    text: str, key: str, place: str, nearest: str
) -> None:
    """A misspelt key is refused by name, with where it stands and what was probably meant."""
    sentence = refusal(text)
    assert f"there is no key {key!r}" in sentence
    assert place in sentence.partition("there is no key")[0]
    assert sentence.endswith(f"the nearest is {nearest!r}")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("store = 1\n", "store"),
        ("[store]\npath = 1\n", "store.path"),
        ("[schedule]\ninterval = 300\n", "schedule.interval"),
        ("registries = {}\n", "registries"),
        (f'{MINIMAL}concurrency = "8"\n', "concurrency"),
        (f"{MINIMAL}concurrency = 1.5\n", "concurrency"),
        (f"{MINIMAL}concurrency = true\n", "concurrency"),
        (f'{MINIMAL}requests_per_second = "fast"\n', "requests_per_second"),
        (f"{MINIMAL}max_listing_size = 1000\n", "max_listing_size"),
        (f"{MINIMAL}kind = 1\n", "kind"),
        (f"{MINIMAL}[[registries.watch]]\nrepositories = 'a/b'\n", "repositories"),
        (f"{MINIMAL}[[registries.watch]]\nrepositories = [1]\n", "repositories"),
        ("[[registries]]\nname = 1\nendpoint = 'https://h'\n", "name"),
    ],
)
def test_a_value_of_the_wrong_type_is_located(text: str, place: str) -> None:
    """A value of the wrong type is refused with the place of its key."""
    assert place in refusal(text).partition(": ")[0]


@pytest.mark.parametrize(
    "text", ["", "5", "m", "0s", "0h0m", "-5m", "1.5h", "5 m", "5M", " 5m", "5m!", "367d", "5w"]
)
@pytest.mark.parametrize("key", ["timeout", "retry_for"])
def test_an_impossible_duration_is_refused(text: str, key: str) -> None:
    """What is no positive length of time within a year is refused with its key and value."""
    sentence = refusal(f'{MINIMAL}{key} = "{text}"\n')
    assert key in sentence
    assert f"invalid duration {text!r}" in sentence


@pytest.mark.parametrize("text", ["", "0MiB", "1MB", "64", "-1MiB", "1.5GiB", "1 MiB", "64mib"])
def test_an_impossible_size_is_refused(text: str) -> None:
    """What is no positive number of binary bytes is refused with its key and value."""
    sentence = refusal(f'{MINIMAL}max_listing_size = "{text}"\n')
    assert "max_listing_size" in sentence
    assert f"invalid size {text!r}" in sentence


@pytest.mark.parametrize(
    "line",
    [
        "concurrency = 0",
        "concurrency = -1",
        "agreeing_listings = 0",
        "requests_per_second = 0",
        "requests_per_second = -2.5",
        "requests_per_second = nan",
    ],
)
def test_an_impossible_number_is_refused(line: str) -> None:
    """A count or rate that nothing could be done with is refused."""
    assert line.partition(" ")[0] in refusal(f"{MINIMAL}{line}\n")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[[registries]]\nendpoint = 'https://h'\n", "name"),
        ("[[registries]]\nname = 'swr'\n", "endpoint"),
        (f"{MINIMAL}[registries.auth]\nkind = 'token'\n", "token"),
        (f"{MINIMAL}[registries.auth]\n", "kind"),
        (f"{MINIMAL}[[registries.watch]]\ninterval = '5m'\n", "repositories"),
    ],
)
def test_a_missing_key_is_named(text: str, key: str) -> None:
    """A key without a default has to be there, and the sentence says which is not."""
    sentence = refusal(text)
    assert f"the key {key!r} is missing" in sentence
    assert sentence.startswith("registries")


def test_an_unknown_kind_of_auth_is_refused() -> None:
    """A way of asking that does not exist is refused with those that do."""
    sentence = refusal(f"{MINIMAL}[registries.auth]\nkind = 'kerberos'\n")
    assert "'kerberos'" in sentence
    assert "'none'" in sentence
    assert "'token'" in sentence


def test_an_unknown_kind_of_registry_is_refused() -> None:
    """A registry of a kind that does not exist is refused with the one that does."""
    sentence = refusal(f"{MINIMAL}kind = 'quay'\n")
    assert "'quay'" in sentence
    assert "'swr'" in sentence


@pytest.mark.parametrize("value", [f'"{SECRET}"', f'"ENV:{SECRET}"', f'"vault:{SECRET}"', '"env:"'])
def test_a_literal_secret_is_refused_and_not_repeated(value: str) -> None:
    """A secret written into the file is refused unrepeated, with the three ways to name it."""
    sentence = refusal(with_token(value))
    assert SECRET not in sentence
    assert "token" in sentence.partition(": ")[0]
    assert all(way in sentence for way in ("env:NAME", "file:PATH", "credential:NAME"))


def test_a_secret_that_is_a_number_is_not_repeated() -> None:
    """A secret written as a number is refused without its digits."""
    assert "31415926" not in refusal(with_token("31415926"))


def test_a_secret_of_the_environment(tmp_path: Path) -> None:
    """``env:`` reads a variable, and drops the line break that a shell leaves."""
    secret = read_secret(SecretName("env:SWR_TOKEN"), {"SWR_TOKEN": f" {SECRET}\n"}, tmp_path)
    assert secret.reveal() == SECRET


def test_a_secret_of_a_file(tmp_path: Path) -> None:
    """``file:`` reads a file, relative to the configuration's folder unless absolute."""
    (tmp_path / "token").write_text(f"{SECRET}\n")
    for name in ("file:token", f"file:{tmp_path / 'token'}"):
        assert read_secret(SecretName(name), {}, tmp_path).reveal() == SECRET


def test_a_secret_of_systemd(tmp_path: Path) -> None:
    """``credential:`` reads a file of systemd's folder for credentials."""
    (tmp_path / "swr").write_text(SECRET)
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert read_secret(SecretName("credential:swr"), env, Path("/nowhere")).reveal() == SECRET


def test_the_secret_is_in_the_credential(tmp_path: Path) -> None:
    """A registry's credential carries the secret's value, or is none at all."""
    table = parsed(with_token('"env:SWR_TOKEN"')).registries["swr"]
    asked_with = resolve_credential(table, {"SWR_TOKEN": SECRET}, tmp_path)
    assert isinstance(asked_with, TokenCredential)
    assert asked_with.token.reveal() == SECRET
    assert resolve_credential(parsed(MINIMAL).registries["swr"], {}, tmp_path) == NoCredential()


def test_a_secret_shows_nothing(tmp_path: Path) -> None:
    """Neither a secret nor what holds it shows the value in any of its texts."""
    secret = read_secret(SecretName("env:T"), {"T": SECRET}, tmp_path)
    held = TokenCredential(secret)
    texts = [repr(secret), str(secret), f"{secret}", f"{secret!r}", repr(held), str([held])]
    assert all(SECRET not in text for text in texts)


@pytest.mark.parametrize("env", [{}, {"SWR_TOKEN": ""}, {"SWR_TOKEN": " \n"}])
def test_a_missing_variable_is_refused(env: dict[str, str], tmp_path: Path) -> None:
    """A variable that is not set, or holds nothing, is refused by name."""
    with pytest.raises(ConfigError, match="secret env:SWR_TOKEN is missing or empty"):
        read_secret(SecretName("env:SWR_TOKEN"), env, tmp_path)


def test_a_file_that_gives_no_secret_is_refused(tmp_path: Path) -> None:
    """A file that is missing, empty, a folder or not UTF-8 is refused with its name and why."""
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name, reason in {
        "missing": "No such file",
        "empty": "empty",
        "folder": "Is a directory",
        "binary": "not UTF-8",
    }.items():
        with pytest.raises(ConfigError, match=f"secret file:{name} .*{reason}"):
            read_secret(SecretName(f"file:{name}"), {}, tmp_path)


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    """A file that this user may not read is refused with the reason."""
    path = tmp_path / "token"
    path.write_text(SECRET)
    path.chmod(0)
    try:
        path.read_text()
    except PermissionError:
        pass
    else:
        pytest.skip("this user may read everything")
    with pytest.raises(ConfigError, match="secret file:token cannot be read: Permission denied"):
        read_secret(SecretName("file:token"), {}, tmp_path)


def test_a_credential_outside_systemd_is_refused(tmp_path: Path) -> None:
    """Without systemd's folder, the sentence says how to get one or do without."""
    with pytest.raises(ConfigError, match=r"CREDENTIALS_DIRECTORY is not set.*LoadCredential"):
        read_secret(SecretName("credential:swr"), {}, tmp_path)


def test_a_credential_that_was_not_given_is_refused(tmp_path: Path) -> None:
    """A name that systemd's folder does not have is refused."""
    with pytest.raises(ConfigError, match=r"credential:swr cannot be read: No such file"):
        read_secret(SecretName("credential:swr"), {"CREDENTIALS_DIRECTORY": str(tmp_path)}, FOLDER)


def test_a_repository_named_twice_in_one_watch_is_refused() -> None:
    """A repository cannot be watched twice by the same table."""
    assert refusal(watching("a/b", "a/c", "a/b")).startswith("swr/a/b is named twice")


def test_a_repository_named_in_two_watches_is_refused() -> None:
    """A repository cannot be watched by two tables, whose intervals might differ."""
    text = watching("a/b") + '[[registries.watch]]\nrepositories = ["a/b"]\n'
    assert refusal(text).startswith("swr/a/b is named twice")


def test_two_registries_of_one_name_are_refused() -> None:
    """Names of registries begin every full name, so each is given once."""
    assert "two registries are named 'swr'" in refusal(MINIMAL + MINIMAL)


@pytest.mark.parametrize("name", ["", "a/b", "a b", ".a", "-a", "ä", "a\\n", "*"])
def test_a_bad_name_of_a_registry_is_refused(name: str) -> None:
    """A registry's name is plain enough for patterns, logs and shells."""
    assert "invalid registry name" in refusal(MINIMAL.replace('"swr"', f'"{name}"'))


@pytest.mark.parametrize("name", ["team-a/*", "team-a/?", "team-[ab]/api", "*"])
def test_a_glob_is_for_discovery(name: str) -> None:
    """A glob is taken, and names no repository by itself."""
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
def test_a_bad_name_of_a_repository_is_refused(name: str) -> None:
    """What could not be, or would escape from, a path of the registry is refused."""
    assert "is not of the form namespace/name" in refusal(watching(name))


@pytest.mark.parametrize("name", ["a/b", "team_a/web/frontend", "_a/b.c-d__e", "9/9", "A/B"])
def test_a_good_name_of_a_repository_is_taken(name: str) -> None:
    """Two or more plain parts are a repository."""
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
        f"https://user:{SECRET}@swr-api.example.com",
        f"https://{SECRET}@swr-api.example.com",
    ],
)
def test_an_endpoint_that_is_no_plain_url_is_refused(endpoint: str) -> None:
    """An endpoint is a URL without query, fragment or credentials; those are not repeated."""
    sentence = refusal(MINIMAL.replace("https://swr-api.example.com", endpoint))
    assert sentence.startswith("the endpoint of 'swr' ")
    assert SECRET not in sentence


def test_credentials_are_not_sent_in_the_clear() -> None:
    """Credentials over http:// to another host are refused."""
    sentence = refusal(with_token('"env:SWR_TOKEN"', "http://swr-api.example.com"))
    assert "in the clear" in sentence
    assert "https://" in sentence


@pytest.mark.parametrize("host", ["127.0.0.1:5000", "127.3.2.1", "localhost", "[::1]:5000"])
def test_loopback_needs_no_encryption(host: str) -> None:
    """Credentials over http:// to this very host are fine."""
    text = with_token('"env:SWR_TOKEN"', f"http://{host}")
    assert parsed(text).registries["swr"].endpoint == f"http://{host}"


def test_a_foreign_host_may_be_asked_in_the_clear_without_credentials() -> None:
    """Without credentials there is nothing that http:// would give away."""
    text = MINIMAL.replace("https://", "http://")
    assert parsed(text).registries["swr"].endpoint == "http://swr-api.example.com"


@pytest.mark.parametrize("text", ["[store", "a = ", "a = 1\na = 2\n", "= 1", "\0", "[a]\n[a]\n"])
def test_what_is_no_toml_is_refused(text: str) -> None:
    """What is no TOML is refused with the line."""
    sentence = refusal(text)
    assert sentence.startswith("not valid TOML: ")


def test_nesting_without_end_is_refused() -> None:
    """A file that nests deeper than Python can follow is refused like any other that is no TOML."""
    assert refusal("a = " + "[" * 100_000).startswith("not valid TOML: ")


def test_load_names_the_file(tmp_path: Path) -> None:
    """What is wrong within a file is said with the file's name."""
    path = tmp_path / "config.toml"
    path.write_text("[stor]\n")
    with pytest.raises(ConfigError, match=rf"^{path}: there is no key 'stor'"):
        load(path, {})


def test_load_reads_a_file(tmp_path: Path) -> None:
    """A file is read, and what is relative in it is relative to its folder."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "config.toml").write_text(EVERYTHING)
    with chdir(tmp_path):
        config = load(Path("sub/config.toml"), {})
    assert config.folder == tmp_path / "sub"
    assert config.database == tmp_path / "sub" / "mirror/tags.db"


def test_load_says_why_a_file_cannot_be_read(tmp_path: Path) -> None:
    """A file that is missing, a folder or not UTF-8 is refused with its name and why."""
    (tmp_path / "binary").write_bytes(b'[store]\npath = "\xff"\n')
    (tmp_path / "folder").mkdir()
    for name, reason in {
        "missing": "cannot be read: No such file",
        "folder": "cannot be read: Is a directory",
        "binary": r"is not UTF-8 text \(byte 16\)",
    }.items():
        path = tmp_path / name
        with pytest.raises(ConfigError, match=rf"^{path} {reason}"):
            load(path, {})


@pytest.mark.parametrize(
    ("text", "env", "expected"),
    [
        ('[store]\npath = "x/y.db"\n', {"STATE_DIRECTORY": "/var/lib/t"}, FOLDER / "x/y.db"),
        ('[store]\npath = "/x/y.db"\n', {"STATE_DIRECTORY": "/var/lib/t"}, Path("/x/y.db")),
        ("", {"STATE_DIRECTORY": "/var/lib/t"}, Path("/var/lib/t/tagsync.db")),
        ("", {"STATE_DIRECTORY": "/var/lib/t:/var/lib/u"}, Path("/var/lib/t/tagsync.db")),
        ("", {}, FOLDER / "tagsync.db"),
    ],
)
def test_where_the_database_is(text: str, env: dict[str, str], expected: Path) -> None:
    """The path in the file comes first, then systemd's folder for state, then the file's own."""
    assert parse(text, env, FOLDER).database == expected


def test_an_empty_path_of_the_database_is_refused() -> None:
    """An empty path is a mistake, not the configuration's folder."""
    assert "store.path" in refusal('[store]\npath = ""\n')


def test_what_the_command_line_names_is_found_first(tmp_path: Path) -> None:
    """The command line comes before the environment, which comes before the places searched."""
    (tmp_path / "config.toml").write_text("")
    env = {"TAGSYNC_CONFIG": "of-the-environment.toml"}
    with chdir(tmp_path):
        assert find("given.toml", env) == Path("given.toml")
        assert find(None, env) == Path("of-the-environment.toml")
        assert find(None, {"TAGSYNC_CONFIG": ""}) == Path("config.toml")


def test_that_there_is_no_configuration_is_said(tmp_path: Path) -> None:
    """Without any configuration, the sentence says where it was looked for and how to name one."""
    if SEARCHED[-1].exists():
        pytest.skip("this machine has a configuration for everybody")
    with chdir(tmp_path), pytest.raises(ConfigError) as caught:
        find(None, {})
    for part in ("config.toml", "/etc/tagsync/config.toml", "--config", "$TAGSYNC_CONFIG"):
        assert part in str(caught.value)


# OCI registries.

OCI = """
[[registries]]
name = "r"
kind = "oci"
endpoint = "https://registry.example.com"
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{OCI}[registries.auth]\nkind = 'token'\ntoken = 'env:X'\n", ("'token'", "'basic'")),
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
def test_what_does_not_fit_the_kind_of_registry(text: str, words: tuple[str, ...]) -> None:
    """What is for another kind of registry, or no name there, is refused with what to write."""
    sentence = refusal(text)
    for word in words:
        assert word in sentence


@pytest.mark.parametrize("glob", ["", "v 1", "team/api:v*", "v[1", "v*\u001b[31m"])
def test_a_tag_glob_that_matches_nothing(glob: str, tmp_path: Path) -> None:
    """A glob that no tag can match is refused, lest nothing be resolved without a word."""
    watch = f"[[registries.watch]]\nrepositories = ['a/b']\ntags = [{json.dumps(glob)}]\n"
    with pytest.raises(ConfigError, match="matches no tag"):
        parse(f"{OCI}{watch}", {}, tmp_path)


def test_an_oci_registry(tmp_path: Path) -> None:
    """Tags and manifests reach the watch; names may have one part."""
    text = f"{OCI}ca_file = 'ca.pem'\n[[registries.watch]]\nrepositories = ['busybox', 'a/b/c']\n"
    (watch,) = parse(f"{text}tags = ['v*', 'latest']\nmanifests = true\n", {}, tmp_path).watches
    assert (watch.tags, watch.manifests) == (("v*", "latest"), True)
    (watch,) = parse(text, {}, tmp_path).watches
    assert (watch.tags, watch.manifests) == (("*",), False)


@pytest.mark.parametrize(
    ("auth", "env", "path"),
    [
        ("path = 'x/config.json'", {}, "{folder}/x/config.json"),
        ("path = '/etc/x.json'", {}, "/etc/x.json"),
        ("", {"DOCKER_CONFIG": "/etc/docker"}, "/etc/docker/config.json"),
        ("", {}, "{home}/.docker/config.json"),
        ("path = '~/x.json'", {"DOCKER_CONFIG": "/etc/docker"}, "{home}/x.json"),
    ],
)
def test_where_dockers_configuration_is(
    auth: str, env: dict[str, str], path: str, tmp_path: Path
) -> None:
    """Docker's own configuration is found where Docker finds it, or where path says."""
    text = f"{OCI}[registries.auth]\nkind = 'docker'\n{auth}\n"
    table = parse(text, env, tmp_path).registries["r"]
    expected = path.replace("{folder}", str(tmp_path)).replace("{home}", str(Path.home()))
    credential = resolve_credential(table, env, tmp_path)
    assert isinstance(credential, DockerCredential)
    assert (credential.path or find_docker_config(env)) == Path(expected)

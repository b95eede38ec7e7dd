"""The configuration: defaults, watches, files and places."""

from contextlib import chdir
from datetime import timedelta
from pathlib import Path

import pytest

from tagsync.config import SEARCHED, Config, find, load, parse
from tagsync.config.values import SecretName
from tagsync.errors import ConfigError
from tagsync.registries.credentials import NoCredential, TokenCredential
from tests.support.configurations import FOLDER, MINIMAL, OCI, parsed, refusal, watching

EVERYTHING = """
[store]
path = "mirror/tags.db"

[schedule]
interval = "1h30m"
jitter = "15s"
discovery_interval = "1h"

[metrics]
listen = ":9180"

[hooks]
listen = "[::1]:9181"
secret = "file:hooks"

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
agree_after = "90s"

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


def test_empty_file_is_valid() -> None:
    """An empty file has all defaults, and watches nothing."""
    config = parsed("")
    assert config == Config(FOLDER / "tagsync.db", {}, (), None, FOLDER)


def test_defaults_of_a_registry() -> None:
    """A registry needs only a name and an endpoint."""
    registry = parsed(MINIMAL).registries["swr"]
    assert registry.kind == "swr"
    assert registry.auth == NoCredential()
    assert (registry.concurrency, registry.requests_per_second) == (8, 50.0)
    assert (registry.timeout, registry.retry_for) == (timedelta(seconds=30), timedelta(minutes=1))
    assert registry.max_listing_size == 256 * 1024 * 1024
    assert (registry.agreeing_listings, registry.agree_after) == (2, None)
    assert registry.watch == ()


def test_every_key_is_read() -> None:
    """Each documented key reaches the configuration with its value."""
    config = parsed(EVERYTHING)
    assert config.database == FOLDER / "mirror/tags.db"
    assert config.listen == ("127.0.0.1", 9180)
    assert config.hooks_listen == ("::1", 9181)
    assert config.file.hooks.secret == SecretName("file:hooks")
    assert config.folder == FOLDER
    assert list(config.registries) == ["swr-1.eu", "other"]
    registry = config.registries["swr-1.eu"]
    assert registry.endpoint == "https://swr-api.example.com:8443/base"
    assert registry.auth == TokenCredential(SecretName("env:SWR_TOKEN"))
    assert (registry.concurrency, registry.requests_per_second) == (3, 2.5)
    assert registry.timeout == timedelta(milliseconds=250)
    assert registry.retry_for == timedelta(days=2)
    assert registry.max_listing_size == 512 * 1024
    assert (registry.agreeing_listings, registry.agree_after) == (4, timedelta(seconds=90))


def test_watches_keep_the_order_of_the_file() -> None:
    """Watches are in file order, with their own or the schedule's times."""
    watches = parsed(EVERYTHING).watches
    assert [(w.registry, w.repositories, w.interval, w.agreeing_listings) for w in watches] == [
        ("swr-1.eu", ("team-a/api", "team-a/web/frontend"), timedelta(seconds=30), 4),
        ("swr-1.eu", ("team_b/x.y-z",), timedelta(minutes=5), 4),
        ("other", ("team-a/api",), timedelta(minutes=90), 2),
    ]
    assert [w.agree_after for w in watches] == [timedelta(seconds=90)] * 2 + [None]
    cron = "*/10 8-18 * * 1-5"
    second, minute = timedelta(seconds=1), timedelta(minutes=1)
    assert [(w.cron, w.jitter, w.discovery_interval) for w in watches] == [
        (None, 15 * second, 60 * minute),
        (cron, 90 * second, 5 * minute),
        (None, 15 * second, 60 * minute),
    ]


def test_default_jitter() -> None:
    """The default jitter is a tenth of the interval, at most ten seconds."""
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
        ("", 'cron = "* * * * * *"', "has six fields, and tagsync has none for seconds"),
        ("", 'cron = "@every 6h"', 'write it as interval, like interval = "6h"'),
        ("", 'cron = "@reboot"', "invalid cron expression '@reboot'; write minute"),
        ("", 'cron = "CRON_TZ=Nowhere/X 0 6 * * *"', "the time zone 'Nowhere/X' is unknown"),
        ("", 'cron = "CRON_TZ=../zone 0 6 * * *"', "the time zone '../zone' is unknown"),
        ("", 'cron = "CRON_TZ=Europe/Berlin"', "invalid cron expression"),
        ("", 'cron = "61 * * * *"', "invalid cron expression '61 * * * *' (Bad minute)"),
        ("", 'cron = "0 0 31 4 *"', "(Bad day-of-month)"),
        ("", "cron = 5", "invalid cron expression 5"),
    ],
)
def test_impossible_times_are_refused(schedule: str, watch: str, said: str) -> None:
    """Contradictory, malformed and impossible times are refused with advice."""
    table = f'[[registries.watch]]\nrepositories = ["a/b"]\n{watch}\n'
    assert said in refusal(f"[schedule]\n{schedule}\n{MINIMAL}{table}")


@pytest.mark.parametrize("listen", ["9180", "host:", "host:99999", "a b:1", "http://x:1", ""])
def test_invalid_address_is_refused(listen: str) -> None:
    """An invalid address is refused with an example."""
    sentence = refusal(f'[metrics]\nlisten = "{listen}"\n')
    assert f"invalid address {listen!r}; write it like" in sentence


def test_default_address_is_loopback() -> None:
    """Without a host, the daemon listens on loopback only."""
    listens = [parsed(f'[metrics]\nlisten = "{each}"').listen for each in (":1", "[::1]:2", "h:3")]
    assert listens == [("127.0.0.1", 1), ("::1", 2), ("h", 3)]


def test_push_hints_need_a_secret_and_an_address_of_their_own() -> None:
    """Without a secret, or with a literal one or the address of the metrics, they are refused."""
    hooks = '[hooks]\nlisten = ":9181"\n'
    secret = 'secret = "env:HOOKS"\n'
    assert parsed(hooks + secret).hooks_listen == ("127.0.0.1", 9181)
    assert parsed(f"[hooks]\n{secret}").hooks_listen is None
    assert refusal(hooks).startswith("hooks.listen needs hooks.secret")
    assert "must not be written" in refusal(f'{hooks}secret = "made-up-secret"\n')
    assert "hooks.listen: invalid address 'x'" in refusal(f'[hooks]\nlisten = "x"\n{secret}')
    metrics = '[metrics]\nlisten = "127.0.0.1:9181"\n'
    assert "is the address of metrics.listen" in refusal(hooks + secret + metrics)


def test_repository_twice_in_one_watch_is_refused() -> None:
    """A watch must not name a repository twice."""
    assert refusal(watching("a/b", "a/c", "a/b")).startswith("swr/a/b is named twice")


def test_repository_in_two_watches_is_refused() -> None:
    """Two watches must not name one repository: their intervals may differ."""
    text = watching("a/b") + '[[registries.watch]]\nrepositories = ["a/b"]\n'
    assert refusal(text).startswith("swr/a/b is named twice")


@pytest.mark.parametrize("text", ["[store", "a = ", "a = 1\na = 2\n", "= 1", "\0", "[a]\n[a]\n"])
def test_invalid_toml_is_refused(text: str) -> None:
    """The error for invalid TOML names the line."""
    sentence = refusal(text)
    assert sentence.startswith("not valid TOML: ")


def test_huge_number_is_invalid_toml() -> None:
    """A number with more digits than Python converts is refused like other invalid TOML."""
    assert refusal("a = " + "9" * 5000).startswith("not valid TOML: ")


def test_deep_nesting_is_invalid_toml() -> None:
    """A file that is nested too deeply is refused like other invalid TOML."""
    assert refusal("a = " + "[" * 100_000).startswith("not valid TOML: ")


def test_load_names_the_file(tmp_path: Path) -> None:
    """The error for an invalid file begins with its path."""
    path = tmp_path / "config.toml"
    path.write_text("[stor]\n")
    with pytest.raises(ConfigError, match=rf"^{path}: there is no key 'stor'"):
        load(path, {})


def test_load_reads_a_file(tmp_path: Path) -> None:
    """Relative paths in a file are relative to its folder."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "config.toml").write_text(EVERYTHING)
    with chdir(tmp_path):
        config = load(Path("sub/config.toml"), {})
    assert config.folder == tmp_path / "sub"
    assert config.database == tmp_path / "sub" / "mirror/tags.db"


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_file_of_a_windows_editor_is_read(tmp_path: Path, mark: bytes, ending: bytes) -> None:
    """A byte order mark and CRLF at the ends of lines are accepted."""
    path = tmp_path / "config.toml"
    path.write_bytes(mark + EVERYTHING.encode().replace(b"\n", ending))
    assert load(path, {}) == parse(EVERYTHING, {}, tmp_path)


def test_load_says_why_a_file_cannot_be_read(tmp_path: Path) -> None:
    """The error for an unreadable file has its path and the reason."""
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
def test_path_of_the_database(text: str, env: dict[str, str], expected: Path) -> None:
    """The path is that of the file, else in systemd's state folder, else beside it."""
    assert parse(text, env, FOLDER).database == expected


def test_empty_database_path_is_refused() -> None:
    """An empty path is refused: it would be the configuration's folder."""
    assert "store.path" in refusal('[store]\npath = ""\n')


def test_command_line_has_precedence(tmp_path: Path) -> None:
    """The command line precedes the environment, which precedes the usual places."""
    (tmp_path / "config.toml").write_text("")
    env = {"TAGSYNC_CONFIG": "of-the-environment.toml"}
    with chdir(tmp_path):
        assert find("given.toml", env) == Path("given.toml")
        assert find(None, env) == Path("of-the-environment.toml")
        assert find(None, {"TAGSYNC_CONFIG": ""}) == Path("config.toml")


def test_missing_configuration_is_an_error(tmp_path: Path) -> None:
    """The error for a missing configuration says where it was searched."""
    if SEARCHED[-1].exists():
        pytest.skip("this machine has a configuration for everybody")
    with chdir(tmp_path), pytest.raises(ConfigError) as caught:
        find(None, {})
    for part in ("config.toml", "/etc/tagsync/config.toml", "--config", "$TAGSYNC_CONFIG"):
        assert part in str(caught.value)


def test_keys_of_an_oci_registry(tmp_path: Path) -> None:
    """``tags`` and ``manifests`` reach the watch; a name may have one part."""
    text = f"{OCI}ca_file = 'ca.pem'\n[[registries.watch]]\nrepositories = ['busybox', 'a/b/c']\n"
    (watch,) = parse(f"{text}tags = ['v*', 'latest']\nmanifests = true\n", {}, tmp_path).watches
    assert (watch.tags, watch.manifests) == (("v*", "latest"), True)
    (watch,) = parse(text, {}, tmp_path).watches
    assert (watch.tags, watch.exclude_tags, watch.manifests) == (("*",), (), False)
    (watch,) = parse(f"{text}exclude_tags = ['sha256-*.sig']\n", {}, tmp_path).watches
    assert watch.exclude_tags == ("sha256-*.sig",)
    assert watch.immutable == ()
    (watch,) = parse(f"{text}immutable = ['v*', 'sha-*']\n", {}, tmp_path).watches
    assert watch.immutable == ("v*", "sha-*")


@pytest.mark.parametrize(
    ("cron", "parsed_cron"),
    [
        ("@hourly", "0 * * * *"),
        ("@Daily", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        (" 0  6 * * SUN ", "0 6 * * SUN"),
        ("0 6 * * 7", "0 6 * * 7"),
        ("0 0 L * *", "0 0 L * *"),
        ("CRON_TZ=Europe/Berlin 0 6 * * *", "CRON_TZ=Europe/Berlin 0 6 * * *"),
        ("TZ=Europe/Berlin @daily", "CRON_TZ=Europe/Berlin 0 0 * * *"),
    ],
)
def test_cron_as_other_tools_take_it(cron: str, parsed_cron: str) -> None:
    """The names of crontab(5) and a time zone are accepted."""
    (watch,) = parsed(watching("a/b") + f'cron = "{cron}"\n').watches
    assert watch.cron == parsed_cron


def test_jitter_of_a_watch_may_be_none() -> None:
    """A jitter of 0 means none, and is not replaced by the schedule's."""
    text = '[schedule]\njitter = "10s"\n' + watching("a/b")
    (watch,) = parsed(f"{text}jitter = 0\n").watches
    assert watch.jitter == timedelta()
    (watch,) = parsed(text).watches
    assert watch.jitter == timedelta(seconds=10)


@pytest.mark.parametrize(
    ("value", "interval"),
    [("", timedelta(days=1)), ('verify = "12h"', timedelta(hours=12)), ("verify = 0", timedelta())],
)
def test_how_often_the_record_is_verified(value: str, interval: timedelta) -> None:
    """The daemon verifies once a day unless the schedule says otherwise; 0 means never."""
    config = parsed(f"[schedule]\n{value}\n{watching('a/b')}")
    assert config.file.schedule.verify == interval

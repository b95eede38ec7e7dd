"""The tables [[notify]]: what they mean, and which are refused."""

from datetime import timedelta
from pathlib import Path

import pytest

from tagsync.config import load
from tagsync.config.effective import effective_tables
from tagsync.config.notify_rules import load_rules, rules_without_secrets
from tagsync.config.toml import format_document
from tagsync.errors import ConfigError
from tagsync.notify.targets import (
    DEFAULT_EVENTS,
    AppriseTarget,
    CommandTarget,
    Rule,
    WebhookTarget,
)
from tagsync.secrets import Secret
from tests.support.configurations import SECRET, parsed, refusal

URL = "https://hooks.example.com/tagsync"
KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def notify(kind: str = "webhook", target: str = 'url = "env:URL"', more: str = "") -> str:
    """Return a table of one destination."""
    return f'[[notify]]\nname = "ops"\nkind = "{kind}"\n{target}\n{more}\n'


def test_keys_have_documented_defaults() -> None:
    """A destination gets changes of all repositories and tags at once, 100 in a message."""
    (rule,) = load_rules(parsed(notify()), {"URL": URL})
    assert rule == Rule("ops", WebhookTarget(Secret(URL)))
    assert rule.events == DEFAULT_EVENTS
    assert (rule.batch, rule.batch_size) == (timedelta(0), 100)


def test_each_key_is_taken_over() -> None:
    """Each key of the file is in the rule, with its secrets."""
    more = """
signing_key = "env:KEY"
repositories = ["swr/team-a/*"]
tags = ["prod", "v*"]
events = ["moved", "held"]
batch = "5 min"
batch_size = 7
subject = "$repository moved"
text = "$tag"
"""
    (rule,) = load_rules(parsed(notify(more=more)), {"URL": URL, "KEY": KEY})
    assert rule == Rule(
        "ops",
        WebhookTarget(Secret(URL), Secret(KEY)),
        ("swr/team-a/*",),
        ("prod", "v*"),
        ("moved", "held"),
        timedelta(minutes=5),
        7,
        "$repository moved",
        "$tag",
    )


def test_a_command_has_a_list_of_arguments() -> None:
    """A destination of kind command needs no secret."""
    (rule,) = load_rules(parsed(notify("command", "argv = ['/bin/page', '-x']")), {})
    assert rule.target == CommandTarget(("/bin/page", "-x"))


def test_secrets_are_places_for_commands_that_send_nothing() -> None:
    """Without secrets, the destinations are the same but for the places of their secrets."""
    config = parsed(notify("apprise"))
    (rule,) = rules_without_secrets(config)
    assert rule.target == AppriseTarget(Secret("env:URL"))


def test_a_missing_secret_is_named() -> None:
    """A destination whose secret is missing is refused, and the place is named."""
    with pytest.raises(ConfigError, match="env:URL"):
        load_rules(parsed(notify()), {})


@pytest.mark.parametrize(
    ("url", "key", "problem"),
    [
        ("ftp://hooks.example.com/x", KEY, "url is not the address of a webhook"),
        ("http://hooks.example.com/x", KEY, "in the clear: use https://"),
        ("https://me:hunter2@hooks.example.com/x", KEY, "url contains a user name or a password"),
        (URL, "hunter2-not-to-be-seen", "signing_key is not a key of Standard Webhooks"),
    ],
)
def test_a_secret_that_cannot_be_used_is_refused(url: str, key: str, problem: str) -> None:
    """A wrong URL or key is found before anything is sent, and is not repeated."""
    config = parsed(notify(more='signing_key = "env:KEY"'))
    with pytest.raises(ConfigError) as caught:
        load_rules(config, {"URL": url, "KEY": key})
    assert str(caught.value).startswith("notify 'ops': ")
    assert problem in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_destinations_keep_the_order_of_the_file() -> None:
    """Destinations are in the order of the file."""
    text = notify() + notify().replace('"ops"', '"a"')
    assert [rule.name for rule in rules_without_secrets(parsed(text))] == ["ops", "a"]


def test_the_effective_configuration_has_destinations_without_secrets() -> None:
    """The effective configuration names each place of a secret, and means the same."""
    config = parsed(notify(more='signing_key = "file:key"\nbatch = "90s"'))
    text = format_document(effective_tables(config))
    assert 'url = "env:URL"' in text
    assert 'signing_key = "file:/srv/mirror/key"' in text
    assert 'batch = "1m30s"' in text
    (rule,) = rules_without_secrets(parsed(text))
    assert rule.batch == timedelta(seconds=90)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (notify("webhok"), "there is no kind 'webhok'; the nearest is 'webhook'"),
        (notify("sms"), "there is no kind 'sms'; write one of 'webhook', 'apprise', 'command'"),
        (notify(target=""), "the key 'url' is missing, which kind 'webhook' needs"),
        (notify("apprise", ""), "the key 'url' is missing"),
        (notify("command", ""), "the key 'argv' is missing, which kind 'command' needs"),
        (notify(more="argv = ['/bin/page']"), "kind 'webhook' has no argv: remove the key"),
        (
            notify("command", "argv = ['/bin/page']\nurl = 'env:U'"),
            "kind 'command' has no url: remove the key",
        ),
        (notify("apprise", more="signing_key = 'env:K'"), "kind 'apprise' has no signing_key"),
        (notify("command", "argv = []"), "argv is empty: name a program"),
        (notify("command", "argv = ['page']"), "argv begins with 'page': write the absolute path"),
        (notify("command", "argv = ['/bin/page', 'a\\u0000']".replace("'", '"')), "NUL"),
        (notify(more="events = ['moves']"), "there is no event 'moves'; the nearest is 'moved'"),
        (notify(more="events = ['x']"), "there is no event 'x'; write one of 'added', 'moved'"),
        (notify(more="events = []"), "events is an empty list: name some, or remove the key"),
        (notify(more="tags = []"), "tags is an empty list"),
        (notify(more="repositories = []"), "repositories is an empty list"),
        (notify(more="repositories = ['']"), "repositories: '' matches no repository"),
        (notify(more="tags = ['a b']"), "tags: 'a b' matches no tag that can exist"),
        (notify(more="subject = '$repo moved'"), "subject: there is no $repo"),
        (notify(more="text = 'costs 5 $'"), "text: a $ is not followed by a name"),
        (notify(more="text = ' '"), "text is empty: write a template, or remove the key"),
    ],
)
def test_a_wrong_destination_is_refused_by_name(text: str, problem: str) -> None:
    """The error names the destination, and what is wrong with it."""
    sentence = refusal(text)
    assert sentence.startswith("notify 'ops': ")
    assert problem in sentence


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (notify() + notify(), "two destinations of notifications are named 'ops'"),
        (notify().replace('"ops"', '"a b"'), "invalid name 'a b' of a destination"),
        (notify().replace("[[notify]]", "[notify]"), "[notify] may be there several times"),
        (notify().replace("[[notify]]", "[notify]"), "write [[notify]]"),
        ('[[notify]]\nkind = "webhook"\n', "the key 'name' is missing"),
        ('[[notify]]\nname = "ops"\n', "the key 'kind' is missing"),
        (notify(more="batchsize = 1"), "no key 'batchsize'; the nearest is 'batch_size'"),
        (notify(more="batch_size = 0"), "notify[0].batch_size: expected int >= 1"),
        (notify(more="batch_size = 1001"), "notify[0].batch_size: expected int <= 1000"),
        (notify(more="batch = '5M'"), "M may mean minutes or months"),
        (notify(more="events = 'moved'"), "notify[0].events: expected array"),
    ],
)
def test_a_wrong_table_is_refused(text: str, problem: str) -> None:
    """The error for a name, a key or a type that is wrong says where it is."""
    assert problem in refusal(text)


@pytest.mark.parametrize("key", ["url", "signing_key"])
def test_a_literal_secret_is_refused(key: str) -> None:
    """A secret in the file is refused, and not repeated."""
    target = f'url = "env:URL"\nsigning_key = "{SECRET}"'
    text = notify(target=f'url = "https://hooks.example.com/{SECRET}"' if key == "url" else target)
    sentence = refusal(text)
    assert f"notify[0].{key}: a secret must not be written" in sentence
    assert SECRET not in sentence


def test_a_file_with_a_secret_is_relative_to_the_configuration(tmp_path: Path) -> None:
    """The path of a secret starts in the folder of the configuration."""
    (tmp_path / "url").write_text(f"{URL}\n")
    text = notify(target='url = "file:url"')
    config = parsed(text)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_rules(config, {})
    (tmp_path / "config.toml").write_text(text)
    (rule,) = load_rules(load(tmp_path / "config.toml", {}), {})
    assert rule.target == WebhookTarget(Secret(URL))

"""Unknown and missing keys, and values of the wrong type."""

import pytest

from tests.support.configurations import MINIMAL, refusal


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
def test_unknown_key_is_named_with_the_nearest(
    text: str, key: str, place: str, nearest: str
) -> None:
    """The error for an unknown key has its table and the nearest key."""
    sentence = refusal(text)
    assert f"there is no key {key!r}" in sentence
    assert place in sentence.partition("there is no key")[0]
    assert sentence.endswith(f"the nearest is {nearest!r}")


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("[store]\ncolour = 'red'\n", "path"),
        ("[metrics]\nx = 1\n", "listen"),
        ("[database]\n", "hooks, metrics, notify, registries, schedule, store"),
    ],
)
def test_unknown_key_without_a_near_one(text: str, keys: str) -> None:
    """If no key is near, the error does not suggest one, and names all keys of the table."""
    sentence = refusal(text)
    assert "nearest" not in sentence
    assert sentence.endswith(f"the keys here are {keys}")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("store = 1\n", "store"),
        ("[store]\npath = 1\n", "store.path"),
        ("[schedule]\ninterval = true\n", "schedule.interval"),
        ("registries = {}\n", "registries"),
        (f'{MINIMAL}concurrency = "8"\n', "concurrency"),
        (f"{MINIMAL}concurrency = 1.5\n", "concurrency"),
        (f"{MINIMAL}concurrency = true\n", "concurrency"),
        (f'{MINIMAL}requests_per_second = "fast"\n', "requests_per_second"),
        (f"{MINIMAL}max_listing_size = true\n", "max_listing_size"),
        (f"{MINIMAL}kind = 1\n", "kind"),
        (f"{MINIMAL}[[registries.watch]]\nrepositories = 'a/b'\n", "repositories"),
        (f"{MINIMAL}[[registries.watch]]\nrepositories = [1]\n", "repositories"),
        ("[[registries]]\nname = 1\nendpoint = 'https://h'\n", "name"),
    ],
)
def test_wrong_type_is_located(text: str, place: str) -> None:
    """The error for a value of the wrong type has the place of its key."""
    assert place in refusal(text).partition(": ")[0]


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
def test_impossible_number_is_refused(line: str) -> None:
    """A count or a rate that is not positive is refused."""
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
def test_missing_key_is_named(text: str, key: str) -> None:
    """The error for a missing key has its name."""
    sentence = refusal(text)
    assert f"the key {key!r} is missing" in sentence
    assert sentence.startswith("registries")


def test_unknown_kind_of_auth_is_refused() -> None:
    """The error for an unknown kind of auth names the known kinds."""
    sentence = refusal(f"{MINIMAL}[registries.auth]\nkind = 'kerberos'\n")
    assert "'kerberos'" in sentence
    assert "'none'" in sentence
    assert "'token'" in sentence


def test_wrong_choice_names_the_choices() -> None:
    """The error for a value that is none of a few has all of them."""
    sentence = refusal(f"{MINIMAL}list = 'none'\n")
    assert sentence.endswith("registries[0].list: there is no value 'none'; write 'auto' or 'tags'")

"""Configurations, and the errors for wrong ones."""

from pathlib import Path

import pytest

from tagsync.config import Config, parse
from tagsync.errors import ConfigError

FOLDER = Path("/srv/mirror")
SECRET = "hunter2-not-to-be-seen"

MINIMAL = """
[[registries]]
name = "swr"
endpoint = "https://swr-api.example.com"
"""
OCI = """
[[registries]]
name = "r"
kind = "oci"
endpoint = "https://registry.example.com"
"""


def parsed(text: str) -> Config:
    """Return the configuration in a text."""
    return parse(text, {}, FOLDER)


def refusal(text: str) -> str:
    """Return the error for a text, which is one sentence."""
    with pytest.raises(ConfigError) as caught:
        parsed(text)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def watching(*names: str) -> str:
    """Return a configuration that watches these repositories in one table."""
    listed = ", ".join(f'"{name}"' for name in names)
    return f"{MINIMAL}\n[[registries.watch]]\nrepositories = [{listed}]\n"


def with_token(token: str, endpoint: str = "https://swr-api.example.com") -> str:
    """Return a configuration whose token is this TOML value."""
    return (
        f'[[registries]]\nname = "swr"\nendpoint = "{endpoint}"\n'
        f'[registries.auth]\nkind = "token"\ntoken = {token}\n'
    )

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


# OCI registries.

OCI = """
[[registries]]
name = "r"
kind = "oci"
endpoint = "https://registry.example.com"
"""

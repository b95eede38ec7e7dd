"""The files that tagsync ships beside its code: the systemd units and the full example."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

EXAMPLE: Final = "config.example.toml"
"""The configuration that has every key with its default."""


def shipped_files() -> list[Traversable]:
    """Return the shipped files: the example of a configuration, then the units by name."""
    folder: Traversable = files("tagsync") / "shipped"
    if not folder.is_dir():
        # A source tree and an editable install have the files beside the package.
        folder = Path(__file__).parents[2]
    units = (folder / "systemd").iterdir()
    return [folder / EXAMPLE, *sorted(units, key=lambda unit: unit.name)]

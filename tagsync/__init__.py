"""Mirrors container-registry tags into a local SQLite database and keeps their history.

``tagsync.open(path)`` opens such a database to read it; see `tagsync.api`. ``tagsync.__version__``
is the version. Both are imported when they are used, so that ``import tagsync`` is quick.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tagsync.api import open as open  # noqa: A004  offered as tagsync.open

    __version__: str

__all__ = ["__version__", "open"]


if not TYPE_CHECKING:  # A type checker would permit every name.

    def __getattr__(name: str) -> object:
        if name == "open":
            from tagsync import api  # noqa: PLC0415  only if it is used

            return api.open
        if name == "__version__":
            from importlib.metadata import version  # noqa: PLC0415  only if it is used

            return version("tagsync")
        raise AttributeError(f"module 'tagsync' has no attribute {name!r}")
